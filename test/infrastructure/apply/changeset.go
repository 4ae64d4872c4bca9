package apply

import (
	"fmt"
	"strings"
)

// Action is what applying one object did.
type Action string

const (
	// Created means that the object was not there.
	Created Action = "created"
	// Configured means that the object was there and differed.
	Configured Action = "configured"
	// Unchanged means that the object was there as wanted.
	Unchanged Action = "unchanged"
	// Replaced means that the object was deleted and made anew: it differed in what can
	// be set once only, or was a Job that had failed or was stuck.
	Replaced Action = "replaced"
	// Removed means that the object was made by an Apply before and is wanted no more.
	Removed Action = "removed"
	// Restarted means that a workload was there as wanted, but pods of it that had
	// crashed or lacked their image were deleted: waiting out the node's back-off
	// takes up to five minutes.
	Restarted Action = "restarted"
)

// Change is what applying one object did.
type Change struct {
	Object Ref
	Action Action
}

// String returns, for example, "Deployment/apps/backend configured".
func (c Change) String() string { return c.Object.String() + " " + string(c.Action) }

// ChangeSet is what one Apply did, in the order of application.
type ChangeSet []Change

// String returns one line per object.
func (s ChangeSet) String() string {
	lines := make([]string, len(s))
	for i, change := range s {
		lines[i] = change.String()
	}
	return strings.Join(lines, "\n")
}

// Summary counts the actions: "3 created, 1 unchanged".
func (s ChangeSet) Summary() string {
	var parts []string
	for _, action := range []Action{Created, Configured, Replaced, Restarted, Removed, Unchanged} {
		n := 0
		for _, change := range s {
			if change.Action == action {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, action))
		}
	}
	return strings.Join(parts, ", ")
}
