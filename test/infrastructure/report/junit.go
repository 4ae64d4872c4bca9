package report

import (
	"encoding/xml"
	"fmt"

	"kubernaut.ai/e2e/test/infrastructure/timeline"
)

type testsuite struct {
	XMLName  xml.Name   `xml:"testsuite"`
	Name     string     `xml:"name,attr"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Skipped  int        `xml:"skipped,attr"`
	Time     string     `xml:"time,attr"`
	Started  string     `xml:"timestamp,attr"`
	Cases    []testcase `xml:"testcase"`
}

type testcase struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    string   `xml:"time,attr"`
	Failure *message `xml:"failure,omitempty"`
	Skipped *message `xml:"skipped,omitempty"`
	Output  string   `xml:"system-out,omitempty"`
}

type message struct {
	Text string `xml:"message,attr"`
}

// junit renders one case a step. A step that was canceled because another failed
// counts as skipped: the failure is reported once, where it happened.
func junit(doc timeline.Document) ([]byte, error) {
	suite := testsuite{
		Name: "phases", Tests: len(doc.Steps),
		Time: fmt.Sprintf("%.3f", doc.TotalSeconds), Started: doc.Started.UTC().Format("2006-01-02T15:04:05"),
	}
	for _, entry := range doc.Steps {
		c := testcase{Class: "phases." + entry.Phase, Name: entry.Title(), Time: fmt.Sprintf("%.3f", entry.Took().Seconds())}
		switch entry.Outcome {
		case timeline.Failed:
			suite.Failures++
			c.Failure = &message{entry.Detail}
		case timeline.Canceled, timeline.Skipped:
			suite.Skipped++
			c.Skipped = &message{entry.Detail}
		case timeline.Done, timeline.Cached:
			c.Output = string(entry.Outcome) + " " + entry.Detail
		}
		suite.Cases = append(suite.Cases, c)
	}
	data, err := xml.MarshalIndent(suite, "", "  ")
	return append([]byte(xml.Header), append(data, '\n')...), err
}
