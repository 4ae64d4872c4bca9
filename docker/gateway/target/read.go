package target

import (
	"maps"
	"slices"
	"strings"
)

// read returns the labels that say something, under the names that the table knows:
// an empty value is an absent label, a dot is written _, and synonyms stand in.
func read(given map[string]string) map[string]string {
	labels := make(map[string]string, len(given)+1)
	var dotted []string
	for label, value := range given {
		switch {
		case value == "":
		case strings.Contains(label, "."):
			dotted = append(dotted, label)
		default:
			labels[label] = value
		}
	}
	slices.Sort(dotted) // the same one wins each time
	for _, label := range dotted {
		standIn(labels, clean(label), given[label])
	}
	for _, row := range synonyms {
		standIn(labels, row.label, labels[row.other])
	}
	return labels
}

// standIn sets a label that is absent.
func standIn(labels map[string]string, label, value string) {
	if _, present := labels[label]; !present && value != "" {
		labels[label] = value
	}
}

// clean returns a label's name as the table writes it.
func clean(label string) string { return strings.ReplaceAll(label, ".", "_") }

// keys returns the names in a set of labels, sorted.
func keys(labels map[string]string) []string { return slices.Sorted(maps.Keys(labels)) }
