// Command probe is what a container runs to show that its engine is of use: it sends
// what is in /probe/token to everybody who connects, for half a minute. With a name as its
// argument it looks that up first, and then sends how long it took, five seconds at most.
package main

import (
	"context"
	"net"
	"os"
	"time"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	token, err := os.ReadFile("/probe/token")
	if err != nil {
		token = []byte(err.Error())
	}
	if len(os.Args) > 1 {
		lookup, done := context.WithTimeout(ctx, 5*time.Second) // as kind's entrypoint allows
		begin := time.Now()
		_, _ = net.DefaultResolver.LookupHost(lookup, os.Args[1]) // few engines have it: any answer will do
		done()
		token = append(token, "\n"+time.Since(begin).String()...)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":80")
	if err != nil {
		os.Exit(1)
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	for {
		conn, err := listener.Accept()
		if err != nil {
			os.Exit(1)
		}
		_, _ = conn.Write(token)
		_ = conn.Close()
	}
}
