package cli

import (
	"fmt"
	"time"

	"go.uber.org/zap/zapcore"
)

// reporter tells whoever waits how it goes: on a terminal in one line that is overwritten, with the time left; elsewhere
// in one line a change.
type reporter struct {
	env   *environment
	said  map[string]string // what was last reported of each
	drawn bool              // a line of progress stands on the terminal
}

func newReporter(env *environment) *reporter { return &reporter{env: env, said: map[string]string{}} }

// say reports what goes on with something; a zero deadline leaves the time out.
func (r *reporter) say(about, what string, deadline time.Time) {
	show := displayOf(r.env.stderr, r.env.getenv)
	if !show.tty {
		if r.said[about] != what {
			r.said[about] = what
			r.env.say(zapcore.InfoLevel, "%s: %s", about, what)
		}
		return
	}
	r.clear()
	line := about + ": " + what
	if !deadline.IsZero() {
		line += fmt.Sprintf(", %s left", max(0, time.Until(deadline)).Round(time.Second))
	}
	if show.width > 1 {
		runes := []rune(line)
		line = string(runes[:min(len(runes), show.width-1)])
	}
	fmt.Fprint(r.env.stderr, line)
	r.drawn = true
}

// forget has the next report about something printed, whatever it says.
func (r *reporter) forget(about string) { delete(r.said, about) }

// clear takes the line of progress off the terminal.
func (r *reporter) clear() {
	if r.drawn {
		fmt.Fprint(r.env.stderr, "\r\x1b[K")
		r.drawn = false
	}
}
