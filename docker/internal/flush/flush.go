// Package flush lets a coverage build write its counters before it is killed: a
// process that ends by SIGKILL writes none. In every other build it does nothing.
package flush
