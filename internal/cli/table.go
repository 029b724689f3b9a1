package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"berth/pkg/host"
	"berth/pkg/status"
)

// minWhy is the narrowest column in which a sentence can still be read; below, it gets lines of its own.
const minWhy = 28

// table writes the status for people.
type table struct {
	w    io.Writer
	show display
	now  time.Time
	err  error // the first of writing
}

// printf keeps the first error, so that a closed pipe is reported once.
func (t *table) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

// colours of states; the rest has none.
func (t *table) paint(state, text string) string {
	if !t.show.colour {
		return text
	}
	var code string
	switch status.State(state) {
	case status.Healthy:
		code = "32" // green
	case status.Unhealthy, status.Blocked, status.Refused:
		code = "31" // red
	case status.Registering, status.Registered, status.Initial, status.Unused, status.Unavailable, status.Unclaimed:
		code = "33" // yellow
	case status.Draining, status.Leaving, status.Drained, status.NotYet, status.Ignored:
		code = "2" // dim
	default:
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// header writes what is about the host: who it is, and everything that is not as it should be.
func (t *table) header(s *status.V1) {
	where := s.Host.InstanceID
	if where == "" {
		where = "an instance that is not identified yet"
	}
	if s.Host.Region != "" {
		where += " (" + s.Host.Region + ")"
	}
	ready := "ready"
	if !s.Readiness.Ready {
		ready = "not ready"
	}
	t.printf("berth %s on %s: %s\n", status.Plain(s.Agent.Version), status.Plain(where), ready)
	for _, c := range s.Readiness.Checks {
		if c.OK {
			continue
		}
		t.paragraph("  ", status.Plain(c.Name+": "+c.Detail), "")
		if c.Change != "" {
			t.paragraph("    ", status.Plain(c.Change), "")
		}
	}
	for _, d := range s.Drains {
		if !d.Host() {
			continue
		}
		by := ""
		if d.By != "" {
			by = ", by " + d.By
		}
		why := ""
		if d.Reason != "" {
			why = ": " + d.Reason
		}
		t.paragraph("  ", status.Plain(fmt.Sprintf("the host drains: %s%s, since %s%s", d.Cause, by, ago(t.now, d.Since), why)), "")
	}
	for _, n := range s.Host.Notices {
		if n.Kind == host.Maintenance {
			t.paragraph("  ", status.Plain("EC2 has scheduled maintenance: "+n.Action+at(n.Deadline)+" (it is not acted on: berth drain --all)"), "")
		}
	}
	t.printf("\n")
}

// at says when something is; nothing where that is not known.
func at(when time.Time) string {
	if when.IsZero() {
		return ""
	}
	return " at " + when.UTC().Format(time.RFC3339)
}

// paragraph writes text after an indentation, broken at the terminal's width.
func (t *table) paragraph(indent, text, state string) {
	width := 0
	if t.show.width > 0 {
		width = max(minWhy, t.show.width-len(indent))
	}
	for _, line := range wrap(text, width) {
		t.printf("%s%s\n", indent, t.paint(state, line))
	}
}

var columns = []string{"CONTAINER", "PORT", "GROUP", "TARGET", "STATE", "SINCE"}

const stateColumn = 4

// rows writes one line a row, and under it as many as its sentence needs.
func (t *table) rows(rows []status.Row, instanceID string) {
	cells := t.cells(rows, func(r *status.Row) string { return r.Target.String() })
	if t.show.width > 0 && sum(widths(cells))+minWhy > t.show.width {
		// The instance's own id is in the header: it is what can be shortened without a loss.
		cells = t.cells(rows, func(r *status.Row) string {
			return strings.Replace(r.Target.String(), instanceID, "i-…", 1)
		})
	}
	width := widths(cells)
	indent := sum(width)
	room := 0
	if t.show.width > 0 {
		room = t.show.width - indent
	}
	below := t.show.width > 0 && room < minWhy
	for i, line := range cells {
		var b strings.Builder
		for n, cell := range line {
			text := cell
			if i > 0 && n == stateColumn {
				text = t.paint(cell, cell)
			}
			b.WriteString(text + strings.Repeat(" ", width[n]-utf8.RuneCountInString(cell)))
		}
		if i == 0 {
			if !below {
				b.WriteString("WHY")
			}
			t.printf("%s\n", strings.TrimRight(b.String(), " "))
			continue
		}
		t.row(b.String(), why(&rows[i-1]), indent, room, below)
	}
}

// row writes one row whose sentence is beside the cells or below them.
func (t *table) row(cells string, sentences []string, indent, room int, below bool) {
	if below {
		t.printf("%s\n", strings.TrimRight(cells, " "))
		for _, s := range sentences {
			t.paragraph("    ", s, "")
		}
		return
	}
	var lines []string
	for _, s := range sentences {
		lines = append(lines, wrap(s, room)...)
	}
	if len(lines) == 0 {
		t.printf("%s\n", strings.TrimRight(cells, " "))
		return
	}
	t.printf("%s%s\n", cells, lines[0])
	for _, line := range lines[1:] {
		t.printf("%s%s\n", strings.Repeat(" ", indent), line)
	}
}

func (t *table) cells(rows []status.Row, targetOf func(*status.Row) string) [][]string {
	cells := [][]string{columns}
	for i := range rows {
		r := &rows[i]
		name, port, to := "-", "-", "-"
		if r.Run.ID != "" || r.Run.Name != "" {
			name = r.Run.String()
		}
		if r.ContainerPort.Port != 0 {
			port = r.ContainerPort.String()
		}
		switch {
		case r.Target.ID != "":
			to = targetOf(r)
		case r.HostPort != 0:
			to = fmt.Sprintf(":%d", r.HostPort)
		}
		group := r.Group
		if group == "" {
			group = "-"
		}
		cells = append(cells, []string{status.Plain(name), port, status.Plain(group), to, string(r.State), ago(t.now, r.Since)})
	}
	return cells
}

// why is what is worth reading about a row: nothing where all is well.
func why(r *status.Row) []string {
	if r.State == status.Healthy {
		return nil
	}
	out := []string{status.Plain(r.Why)}
	if r.Change != "" {
		out = append(out, "→ "+status.Plain(r.Change))
	}
	return out
}

// widths returns the width of each column with the gap after it.
func widths(cells [][]string) []int {
	out := make([]int, len(columns))
	for _, line := range cells {
		for n, cell := range line {
			out[n] = max(out[n], utf8.RuneCountInString(cell)+2)
		}
	}
	return out
}

func sum(n []int) int {
	total := 0
	for _, v := range n {
		total += v
	}
	return total
}

// wrap breaks text at spaces so that no line is longer than width runes; 0 means no limit. A longer word has a line of
// its own.
func wrap(text string, width int) []string {
	if width <= 0 {
		return []string{text}
	}
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if used > 0 && used+1+n > width {
			lines, line, used = append(lines, line), "", 0
		}
		if used > 0 {
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	if used > 0 {
		lines = append(lines, line)
	}
	return lines
}

// ago writes how long ago something was: "42s", "5m", "3h", "12d"; "-" where it is not known.
func ago(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	d := max(0, now.Sub(then))
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// footer says what the table leaves out.
func (t *table) footer(hidden int) {
	switch hidden {
	case 0:
	case 1:
		t.printf("\n1 container is left alone (--all shows it)\n")
	default:
		t.printf("\n%d containers are left alone (--all shows them)\n", hidden)
	}
}

// visible drops the rows of containers that ask for nothing, and counts the containers it dropped.
func visible(rows []status.Row, all bool) ([]status.Row, int) {
	if all {
		return rows, 0
	}
	dropped := map[string]struct{}{}
	kept := slices.DeleteFunc(slices.Clone(rows), func(r status.Row) bool {
		if r.State == status.Ignored {
			dropped[r.Run.ID] = struct{}{}
		}
		return r.State == status.Ignored
	})
	return kept, len(dropped)
}
