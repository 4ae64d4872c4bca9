package canonical

// CostFactor is how many bytes of memory a byte of text takes at most while it is read,
// the canonical form included and the text itself not. TestWhatATextCosts measures it.
const CostFactor = 7
