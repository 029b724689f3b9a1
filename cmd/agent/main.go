// Command berth keeps the target groups of an Application or Network Load Balancer exact for the containers of one
// Docker host: it registers instance-id:port for each host port that Docker picks, and takes it out when the
// container goes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"berth/internal/cli"
)

// Set by the linker (see the Makefile); "devel" in a plain go build.
var (
	version  = "devel"
	revision = ""
	date     = "" // of the commit, RFC 3339
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], cli.Build{Version: version, Revision: revision, Date: date})
	stop()
	os.Exit(code)
}
