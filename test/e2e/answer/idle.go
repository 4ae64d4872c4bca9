package answer

import "time"

// KeepIdle is how long clients of the services keep a connection that nothing is sent on:
// shorter than the five seconds after which the services close one that nothing has come
// on, one that was opened for a request which another connection took. What is sent on it at that
// moment gets no answer, and net/http sends again only on connections that it has used before.
const KeepIdle = 4 * time.Second
