package contract

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// hidden commands are not in the root's list; units and packages run them.
var hidden = []string{"man", "shutdown-drain"}

var (
	commandLine = regexp.MustCompile(`(?m)^  ([a-z-]+)  +\S`)
	flagLine    = regexp.MustCompile(`(?m)^ +(-\w, )?--([a-z-]+)( [a-zA-Z]+)?(  .*)?$`)
)

// commands are all commands of the program, with those of completion, by what help says.
func commands(t *testing.T, w *world) [][]string {
	t.Helper()
	_, list, found := strings.Cut(w.must(0, "--help"), "Available Commands:\n")
	if !found {
		t.Fatal("berth --help lists no commands")
	}
	list, _, _ = strings.Cut(list, "\n\n")
	all := [][]string{nil}
	for _, m := range commandLine.FindAllStringSubmatch(list, -1) {
		all = append(all, []string{m[1]})
	}
	for _, name := range hidden {
		all = append(all, []string{name})
	}
	return all
}

// The help of each command is prose, to be written anew at will: this shows what changed.
func TestHelp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, command := range commands(t, w) {
		name := strings.Join(append([]string{"berth"}, command...), "-")
		golden(t, "help/"+name+".txt", w.must(0, append(command, "--help")...))
	}
}

// Commands and flags, with the type of what a flag takes, are not prose: scripts use them.
func TestFlags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var b strings.Builder
	for _, command := range commands(t, w) {
		fmt.Fprintln(&b, strings.TrimSpace("berth "+strings.Join(command, " ")))
		help := w.must(0, append(command, "--help")...)
		_, flags, _ := strings.Cut(help, "\nFlags:\n")
		for _, m := range flagLine.FindAllStringSubmatch(flags, -1) {
			fmt.Fprintf(&b, "  %s--%s%s\n", m[1], m[2], m[3])
		}
	}
	golden(t, "flags.txt", b.String())
}
