package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// systemd takes the directories of the unit where nobody chose others.
func (l *loader) systemd(getenv func(string) string) {
	for _, d := range []struct{ variable, key, file string }{
		{"STATE_DIRECTORY", "state_dir", ""},
		{"RUNTIME_DIRECTORY", "control_socket", "berth.sock"},
	} {
		// systemd separates several directories by colons; the unit's own is the first.
		dir, _, _ := strings.Cut(getenv(d.variable), ":")
		if _, written := l.cfg.origins[d.key]; dir != "" && !written {
			l.override(d.key, origin{name: d.variable}, filepath.Join(dir, d.file))
		}
	}
}

func (l *loader) variables(getenv func(string) string) {
	for _, s := range settings {
		if v := getenv(s.env()); v != "" {
			l.override(s.key, origin{name: s.env()}, v)
		}
	}
}

func (l *loader) flags(given map[string][]string) {
	for _, s := range settings {
		values, ok := given[s.flag]
		if s.flag == "" || !ok {
			continue
		}
		at := origin{name: "--" + s.flag}
		if len(values) != 1 {
			l.key(at, "", "must be given once")
			continue
		}
		l.override(s.key, at, values[0])
	}
}

// override sets a key from a flag or variable.
func (l *loader) override(key string, at origin, text string) {
	s, _ := findSetting(key)
	if err := s.value(l.cfg).set(text); err != nil {
		l.value(at, "", text, err.Error())
		return
	}
	l.cfg.origins[key] = at
}

// targetGroups takes groups from the flag or the variable.
func (l *loader) targetGroups(o Options, filesSay bool) {
	at, values := origin{name: "--" + TargetGroupFlag}, o.Flags[TargetGroupFlag]
	if len(values) == 0 {
		v := o.Getenv(TargetGroupVariable)
		if v == "" {
			return
		}
		at = origin{name: TargetGroupVariable}
		for item := range strings.SplitSeq(v, ",") {
			values = append(values, strings.TrimSpace(item))
		}
	}
	if filesSay {
		l.key(at, "", fmt.Sprintf("cannot be used together with %s: name the group there", strings.Join(l.cfg.Files, ", ")))
		return
	}
	for _, v := range values {
		l.targetGroup(at, v)
	}
}

func (l *loader) targetGroup(at origin, v string) {
	g := defaultGroup(v)
	g.Source = at.String()
	if strings.HasPrefix(v, "arn:") {
		arn, err := ParseARN(v)
		if err != nil {
			l.value(at, "", v, err.Error())
			return
		}
		g.Key, g.ARN = arn.Name, v
		l.arnAt[g.Key] = at
	} else if err := checkName(v); err != nil {
		l.value(at, "", v, "must be a target group's name or ARN; a name "+err.Error())
		return
	} else {
		g.Name = v
	}
	if _, ok := l.groupAt[g.Key]; ok {
		l.value(at, "", v, "duplicate target group "+g.Key)
		return
	}
	l.groupAt[g.Key] = at
	l.cfg.Groups = append(l.cfg.Groups, g)
}
