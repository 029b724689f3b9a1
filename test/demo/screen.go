package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// screen prints what a person should see. Colours are for terminals alone, and not where NO_COLOR is set.
type screen struct {
	out    io.Writer
	colour bool
	steps  int
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{out: out, colour: terminal && os.Getenv("NO_COLOR") == ""}
}

// The colours of the terminal.
const (
	bold  = "1"
	dim   = "2"
	green = "32"
	cyan  = "36"
)

func (s *screen) paint(colour, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// step begins a numbered step.
func (s *screen) step(title string) {
	s.steps++
	fmt.Fprintf(s.out, "\n%s\n", s.paint(bold, fmt.Sprintf("%d. %s", s.steps, title)))
}

// say prints a sentence.
func (s *screen) say(format string, args ...any) { fmt.Fprintf(s.out, "   "+format+"\n", args...) }

// good prints what has succeeded.
func (s *screen) good(format string, args ...any) {
	s.say("%s", s.paint(green, fmt.Sprintf(format, args...)))
}

// command prints a command that is run.
func (s *screen) command(line string) { s.say("%s", s.paint(cyan, "$ "+line)) }

// quote prints text as it is, indented.
func (s *screen) quote(title, text string) {
	if title != "" {
		s.say("%s", s.paint(dim, title+":"))
	}
	for line := range strings.Lines(text) {
		s.say("  %s", strings.TrimRight(line, "\n"))
	}
}
