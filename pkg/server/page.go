package server

import (
	"bytes"
	"fmt"
	"html"
	"net/http"
	"time"

	"berth/pkg/status"
)

// This file is the status page: the same facts as /v1/status, for a browser. It is one document without scripts.
//
// It is written without html/template: a program that links that keeps every method of every type that it can reach,
// which is a third of it, because a template might call them by name.

const pageHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<style>
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
.healthy, .ok { color: #1a7f37; } .unhealthy, .blocked, .refused, .denied, .gone, .full, .misconfigured, .bad { color: #cf222e; }
.mono { font-family: ui-monospace, monospace; font-size: .92em; } .dim { opacity: .7; }
</style>
`

const pageTargets = `<h2>Targets</h2>
<table>
<thead><tr><th>Container</th><th>Group</th><th>Port</th><th>Target</th><th>State</th><th>Since</th><th>Why</th></tr></thead>
<tbody>
`

const pageGroups = `</tbody>
</table>
<h2>Target groups</h2>
<table>
<thead><tr><th>Group</th><th>Name</th><th>Protocol</th><th>State</th><th>Desired</th><th>Registered</th><th>Healthy</th><th>Refused</th><th>Unclaimed</th><th>Verified</th></tr></thead>
<tbody>
`

const pageEnd = `</tbody>
</table>
</body>
</html>
`

// pageWriter writes HTML. Whatever is not part of the page itself goes through put.
type pageWriter struct{ bytes.Buffer }

// put writes a format of %s, %v and %d. Every argument is escaped, for text and for quoted attributes.
func (p *pageWriter) put(format string, args ...any) {
	for i, arg := range args {
		if _, number := arg.(int); !number {
			args[i] = html.EscapeString(fmt.Sprint(arg))
		}
	}
	fmt.Fprintf(p, format, args...)
}

// unless writes format with arg, unless arg is empty.
func (p *pageWriter) unless(format, arg string) {
	if arg != "" {
		p.put(format, arg)
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateTime)
}

func (s *Server) servePage(w http.ResponseWriter, _ *http.Request) {
	status := s.Status()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page(&status)) // a client that is gone needs no answer
}

func page(s *status.V1) []byte {
	var p pageWriter
	p.WriteString(pageHead)
	p.put("<title>berth")
	p.unless(" on %s", s.Host.InstanceID)
	p.put("</title>\n</head>\n<body>\n<h1>berth %s", s.Agent.Version)
	p.unless(` on <span class="mono">%s</span>`, s.Host.InstanceID)
	p.unless(", %s", s.Host.Region)
	p.put("</h1>\n<p>")
	if s.Readiness.Ready {
		p.put(`<span class="ok">Ready.</span>`)
	} else {
		p.put(`<span class="bad">Not ready.</span>`)
	}
	p.put("\n"+`<span class="dim">%s UTC, configuration %v, up since %s.</span></p>`+"\n<ul>", stamp(s.At), s.Generation, stamp(s.Agent.StartedAt))
	for i := range s.Readiness.Checks {
		if c := &s.Readiness.Checks[i]; !c.OK {
			p.put("<li><b>%s</b>: %s", c.Name, c.Detail)
			p.unless(` <span class="dim">%s</span>`, c.Change)
			p.put("</li>")
		}
	}
	for i := range s.Drains {
		if d := &s.Drains[i]; d.Host() {
			p.put("<li><b>The host drains</b>: %s", d.Cause)
			p.unless(", by %s", d.By)
			p.put(", since %s</li>", stamp(d.Since))
		}
	}
	p.put("</ul>\n")
	p.WriteString(pageTargets)
	for i := range s.Rows {
		p.row(&s.Rows[i])
	}
	if len(s.Rows) == 0 {
		p.put(`<tr><td colspan="7">No container has asked for a target group yet.</td></tr>` + "\n")
	}
	p.WriteString(pageGroups)
	for i := range s.Groups {
		p.group(&s.Groups[i])
	}
	p.WriteString(pageEnd)
	return p.Bytes()
}

func (p *pageWriter) row(r *status.Row) {
	p.put("<tr><td>%s", r.Run)
	if r.Run.ID != "" {
		p.put(` <span class="mono dim">%s</span>`, r.Run.Short())
	}
	p.put("</td><td>%s</td>\n<td>", r.Group)
	if r.ContainerPort.Port != 0 {
		p.put("%s", r.ContainerPort)
	}
	p.put(`</td><td class="mono">`)
	switch {
	case r.Target.ID != "":
		p.put("%s", r.Target)
	case r.HostPort != 0:
		p.put(":%v", r.HostPort)
	}
	p.put(`</td>`+"\n"+`<td class="%s">%s</td><td>%s</td><td>%s`, r.State, r.State, stamp(r.Since), r.Why)
	p.unless(` <span class="dim">%s</span>`, r.Change)
	p.put("</td></tr>\n")
}

func (p *pageWriter) group(g *status.GroupV1) {
	p.put(`<tr><td>%s</td><td>%s</td><td>%s</td><td class="%s">%s`, g.Label(), g.Name, g.Protocol, g.State, g.State)
	p.unless(": %s", g.Err)
	for _, h := range g.Held {
		p.put(`; keeps what is of %s: <span class="dim">%s</span>`, h.Key, h.Why)
	}
	n := g.Counts
	p.put("</td>\n<td>%d</td><td>%d</td><td>%d</td><td>%d</td><td>%d</td><td>%s</td></tr>\n",
		n.Desired, n.Registered, n.Healthy, n.Refused, n.Unclaimed, stamp(g.VerifiedAt))
}
