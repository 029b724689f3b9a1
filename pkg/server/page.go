package server

import (
	"bytes"
	"html/template"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// page is the status page: the same facts as /v1/status, for a browser. It is one document without scripts.
var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"stamp": func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format("2006-01-02 15:04:05")
	},
}).Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<title>berth{{with .Host.InstanceID}} on {{.}}{{end}}</title>
<style>
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
.healthy, .ok { color: #1a7f37; } .unhealthy, .blocked, .refused, .denied, .gone, .full, .misconfigured, .bad { color: #cf222e; }
.mono { font-family: ui-monospace, monospace; font-size: .92em; } .dim { opacity: .7; }
</style>
</head>
<body>
<h1>berth {{.Agent.Version}}{{with .Host.InstanceID}} on <span class="mono">{{.}}</span>{{end}}{{with .Host.Region}}, {{.}}{{end}}</h1>
<p>{{if .Readiness.Ready}}<span class="ok">Ready.</span>{{else}}<span class="bad">Not ready.</span>{{end}}
<span class="dim">{{stamp .At}} UTC, configuration {{.Generation}}, up since {{stamp .Agent.StartedAt}}.</span></p>
<ul>{{range .Readiness.Checks}}{{if not .OK}}<li><b>{{.Name}}</b>: {{.Detail}}{{with .Change}} <span class="dim">{{.}}</span>{{end}}</li>{{end}}{{end}}
{{range .Drains}}{{if not .Container}}<li><b>The host drains</b>: {{.Cause}}{{with .By}}, by {{.}}{{end}}, since {{stamp .Since}}</li>{{end}}{{end}}</ul>
<h2>Targets</h2>
<table>
<thead><tr><th>Container</th><th>Group</th><th>Port</th><th>Target</th><th>State</th><th>Since</th><th>Why</th></tr></thead>
<tbody>
{{range .Rows}}<tr><td>{{.Run}}{{if .Run.ID}} <span class="mono dim">{{.Run.Short}}</span>{{end}}</td><td>{{.Group}}</td>
<td>{{if .ContainerPort.Port}}{{.ContainerPort}}{{end}}</td><td class="mono">{{if .Target.ID}}{{.Target}}{{else if .HostPort}}:{{.HostPort}}{{end}}</td>
<td class="{{.State}}">{{.State}}</td><td>{{stamp .Since}}</td><td>{{.Why}}{{with .Change}} <span class="dim">{{.}}</span>{{end}}</td></tr>
{{else}}<tr><td colspan="7">No container has asked for a target group yet.</td></tr>
{{end}}</tbody>
</table>
<h2>Target groups</h2>
<table>
<thead><tr><th>Group</th><th>Name</th><th>Protocol</th><th>State</th><th>Desired</th><th>Registered</th><th>Healthy</th><th>Refused</th><th>Unclaimed</th><th>Verified</th></tr></thead>
<tbody>
{{range .Groups}}<tr><td>{{.Label}}</td><td>{{.Name}}</td><td>{{.Protocol}}</td><td class="{{.State}}">{{.State}}{{with .Err}}: {{.}}{{end}}</td>
<td>{{.Counts.Desired}}</td><td>{{.Counts.Registered}}</td><td>{{.Counts.Healthy}}</td><td>{{.Counts.Refused}}</td><td>{{.Counts.Unclaimed}}</td><td>{{stamp .VerifiedAt}}</td></tr>
{{end}}</tbody>
</table>
</body>
</html>
`))

func (s *Server) servePage(w http.ResponseWriter, _ *http.Request) {
	var body bytes.Buffer
	if err := page.Execute(&body, s.Status()); err != nil {
		s.log.Error("render status page", zap.Error(err))
		writeError(w, http.StatusInternalServerError, "the page cannot be rendered")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(body.Bytes()) // a client that is gone needs no answer
}
