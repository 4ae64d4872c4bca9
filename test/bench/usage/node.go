// Package usage tells who uses the machine while a load runs: the programs of a node,
// a service by its own metrics, and the load generator itself.
package usage

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
)

// tick is the unit of CPU time in /proc: USER_HZ, which is 100 on every architecture
// that Go and Kubernetes run on.
const tick = 10 * time.Millisecond

// Node is what a node's /proc said at one moment. Its processor's figures are those of
// the whole machine: containers share the kernel.
type Node struct {
	Uptime   time.Duration            // when, since the machine was started
	CPUs     int                      // of the machine
	Busy     time.Duration            // CPU time that was used since then, by everything
	Programs map[string]time.Duration // by name: CPU time of the processes in the node, with that of children that ended
}

// ReadNode asks a node, with one command in its container.
func ReadNode(ctx context.Context, runner command.Runner, engine, node string) (Node, error) {
	var out bytes.Buffer
	err := runner.Run(ctx, command.Cmd{Stdout: &out, Args: []string{
		engine, "exec", node, "find", "/proc", "-maxdepth", "2",
		"(", "-path", "/proc/stat", "-o", "-path", "/proc/uptime", "-o", "-path", "/proc/[0-9]*/stat", ")", "-exec", "cat", "{}", "+",
	}})
	// A process that ends between find and cat makes cat fail, after it has shown the others.
	read, parseErr := parseNode(out.String())
	if parseErr != nil && err != nil {
		return read, err
	}
	return read, parseErr
}

// parseNode reads /proc/stat, /proc/uptime and the /proc/<pid>/stat of all processes,
// in any order.
func parseNode(text string) (Node, error) {
	node := Node{Programs: map[string]time.Duration{}}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 9 && fields[0] == "cpu":
			// user, nice, system, idle, iowait, irq, softirq, steal. Idle is waiting,
			// iowait is waiting for a disk, and what was stolen another machine used.
			node.Busy = ticks(fields[1]) + ticks(fields[2]) + ticks(fields[3]) + ticks(fields[6]) + ticks(fields[7])
		case len(fields) >= 9 && strings.HasPrefix(fields[0], "cpu"):
			node.CPUs++
		case len(fields) == 2 && strings.Contains(fields[0], "."):
			seconds, err := strconv.ParseFloat(fields[0], 64)
			if err != nil {
				return node, fmt.Errorf("/proc/uptime: %w", err)
			}
			node.Uptime = time.Duration(seconds * float64(time.Second))
		default:
			if name, used, ok := parseProcess(line); ok {
				node.Programs[name] += used
			}
		}
	}
	if node.Busy == 0 || node.CPUs == 0 || node.Uptime == 0 || len(node.Programs) == 0 {
		return node, fmt.Errorf("/proc of the node: something is missing in its %d bytes", len(text))
	}
	return node, nil
}

// parseProcess reads a line of /proc/<pid>/stat. The name stands in parentheses and
// may itself hold some.
func parseProcess(line string) (name string, used time.Duration, ok bool) {
	opened, closed := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if opened < 0 || closed < opened {
		return "", 0, false
	}
	fields := strings.Fields(line[closed+1:])
	if len(fields) < 15 {
		return "", 0, false
	}
	// utime, stime, cutime and cstime are the 14th to 17th field of the line.
	for _, field := range fields[11:15] {
		used += ticks(field)
	}
	return line[opened+1 : closed], used, true
}

func ticks(text string) time.Duration {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n) * tick
}

// Since returns how many cores each program, and the whole machine, has used since an
// earlier moment. A program that used less than it had before has ended and began
// anew; what it used is then not known and 0.
func (n Node) Since(before Node) (programs map[string]float64, busy float64) {
	took := n.Uptime - before.Uptime
	if took <= 0 {
		return nil, 0
	}
	programs = map[string]float64{}
	for name, used := range n.Programs {
		if more := used - before.Programs[name]; more > 0 {
			programs[name] = float64(more) / float64(took)
		}
	}
	return programs, float64(n.Busy-before.Busy) / float64(took)
}
