// Command elbsim serves a local stand-in for Elastic Load Balancing v2 and the EC2 instance metadata service, with load
// balancers that really forward. See docs/elbsim.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program: it serves until ctx ends. 0: it was told to stop; 1: it could not serve; 2: it was started wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := command(stdout)
	c.SetArgs(args)
	c.SetOut(stdout)
	c.SetErr(stderr)
	err := c.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "elbsim:", err)
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}
