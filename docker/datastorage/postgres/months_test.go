package postgres

import (
	"slices"
	"testing"
	"time"
)

func TestMonths(t *testing.T) {
	for now, want := range map[string][]string{
		"2026-11-23T12:00:00Z":      {"2026-11", "2026-12", "2027-01"},
		"2026-11-03T12:00:00Z":      {"2026-10", "2026-11", "2026-12", "2027-01"}, // 7 days back
		"2026-11-30T23:30:00Z":      {"2026-11", "2026-12", "2027-01", "2027-02"}, // 60 minutes ahead
		"2026-12-31T22:59:59Z":      {"2026-12", "2027-01", "2027-02"},            // year's end
		"2026-12-31T23:00:00Z":      {"2026-12", "2027-01", "2027-02", "2027-03"},
		"2028-02-29T12:00:00Z":      {"2028-02", "2028-03", "2028-04"}, // leap day
		"2028-03-07T12:00:00Z":      {"2028-02", "2028-03", "2028-04", "2028-05"},
		"2027-01-31T12:00:00Z":      {"2027-01", "2027-02", "2027-03"}, // no month is skipped after the 31st
		"2027-01-01T00:30:00+02:00": {"2026-12", "2027-01", "2027-02"}, // UTC counts
	} {
		at, err := time.Parse(time.RFC3339, now)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, month := range months(at) {
			got = append(got, month.Format("2006-01"))
			if month.Day() != 1 || month.Hour() != 0 {
				t.Errorf("%s: %s is not a first day", now, month)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", now, got, want)
		}
	}
}

func TestChainLocksAscend(t *testing.T) {
	if _, got := locksOf([]string{"a", "b", "c", "a", "d"}); len(got) != 4 || !slices.IsSorted(got) {
		t.Errorf("got %v", got)
	}
}

func TestStripesAscend(t *testing.T) {
	got, _ := locksOf([]string{"a", "b", "c", "a", "d"})
	if len(got) != 4 || !slices.IsSorted(got) || got[0] < 0 || got[len(got)-1] >= lockStripes {
		t.Errorf("got %v", got)
	}
}
