package target

// Names of report entries by which a spec tells of the faults that it makes, for the page of
// the run: one begins, it is over, or it happens at once. Their values say what it is, the
// same where it begins and is over.
const (
	FaultBegins = "fault begins"
	FaultOver   = "fault over"
	Fault       = "fault"
)
