// Web is the application that tests and the demo run in containers: a small HTTP server that says who it is, and that
// starts, stops, sickens and dies as it is told. It is one static binary, so that an image FROM scratch can hold it.
//
//	web [flags]              serve
//	web healthcheck [URL]    exit 0 if the server is well: for Docker's HEALTHCHECK
//
// It answers
//
//	GET  /           who it is, as JSON (Identity)
//	GET  /healthz    200, or what was put there: what a load balancer asks
//	GET  /livez      likewise: what the healthcheck subcommand asks
//	PUT  /healthz    body: the status to answer from now on ("503")
//	PUT  /livez      likewise
//	GET  /slow?for=D who it is, after D ("2s")
//	POST /exit?code=N  dies at once with that code
//
// Any other path is answered like /. SIGHUP, SIGUSR1 and SIGUSR2 are logged and survived.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// What SIGTERM and SIGINT do, as --stop has it.
const (
	stopGraceful = "graceful" // serve on for --drain, then finish the requests in flight
	stopDie      = "die"      // exit at once, whatever is in flight
	stopIgnore   = "ignore"   // nothing: only SIGKILL helps
)

// options are the flags.
type options struct {
	listen     string
	echoTCP    string
	echoUDP    string
	service    string
	name       string
	stop       string
	drain      time.Duration
	startDelay time.Duration
	exitAfter  time.Duration
	exitCode   int
	unhealthy  bool
}

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	code := run(ctx, os.Args[1:], os.Stdout)
	cancel()
	os.Exit(code)
}

// run is the whole program: it returns the exit code. It ends when ctx does, as on SIGTERM.
func run(ctx context.Context, args []string, out io.Writer) int {
	if len(args) > 0 && args[0] == "healthcheck" {
		return healthcheck(ctx, args[1:], out)
	}
	opts, err := parse(args, out)
	if err != nil {
		return 2
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	code, err := serve(ctx, opts, signals, out)
	if err != nil {
		fmt.Fprintf(out, "web: %v\n", err)
		return max(code, 1)
	}
	return code
}

func parse(args []string, out io.Writer) (options, error) {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	var o options
	flags := flag.NewFlagSet("web", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.listen, "listen", ":8080", "addresses to serve HTTP on, separated by commas")
	flags.StringVar(&o.echoTCP, "echo-tcp", "", "address on which TCP connections get their own bytes back; empty: none")
	flags.StringVar(&o.echoUDP, "echo-udp", "", "address on which UDP datagrams get their own bytes back; empty: none")
	flags.StringVar(&o.service, "service", cmp.Or(os.Getenv("WEB_SERVICE"), "web"), "the service it says it belongs to ($WEB_SERVICE)")
	flags.StringVar(&o.name, "name", cmp.Or(os.Getenv("WEB_NAME"), hostname), "the name it says it has ($WEB_NAME, or the host's)")
	flags.StringVar(&o.stop, "stop", stopGraceful, "what SIGTERM does: graceful, die or ignore")
	flags.DurationVar(&o.drain, "drain", 0, "how long to serve on after SIGTERM, where --stop is graceful")
	flags.DurationVar(&o.startDelay, "start-delay", 0, "how long to wait before listening")
	flags.DurationVar(&o.exitAfter, "exit-after", 0, "how long to live; 0: until told to stop")
	flags.IntVar(&o.exitCode, "exit-code", 1, "the exit code after --exit-after")
	flags.BoolVar(&o.unhealthy, "unhealthy", false, "begin with 503 at /healthz and /livez")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	switch o.stop {
	case stopGraceful, stopDie, stopIgnore:
	default:
		err := fmt.Errorf("--stop %q: must be graceful, die or ignore", o.stop)
		fmt.Fprintf(out, "web: %v\n", err)
		return options{}, err
	}
	return o, nil
}

// healthcheck asks the server of this container how it is, and returns the exit code that Docker wants: 0 or 1.
func healthcheck(ctx context.Context, args []string, out io.Writer) int {
	url := "http://127.0.0.1:8080/livez"
	if len(args) > 0 {
		url = args[0]
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		fmt.Fprintln(out, err)
		return 1
	}
	defer response.Body.Close()
	fmt.Fprintln(out, response.Status)
	if response.StatusCode != http.StatusOK {
		return 1
	}
	return 0
}
