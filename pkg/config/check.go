package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// crossCheck applies the rules between keys, when all sources have been read.
func (l *loader) crossCheck() {
	c := l.cfg
	if c.Listen == c.StatusListen && c.Listen != "" && !strings.HasSuffix(c.Listen, ":0") {
		l.mustDiffer("status_listen", "listen")
	}
	if c.ControlSocket == c.Docker.Socket {
		l.mustDiffer("control_socket", "docker.socket")
	}
	if c.Lifecycle.LaunchHook != "" && len(c.Groups) > 0 && !slices.ContainsFunc(c.Groups, func(g Group) bool { return g.Required }) {
		at := c.origins["lifecycle.launch_hook"]
		l.value(at, fileKey(at, "lifecycle.launch_hook"), c.Lifecycle.LaunchHook,
			"needs at least one target group with required: true, to know when the host may come into service")
	}
	ownership := map[string]Group{}
	for _, g := range c.Groups {
		arn, err := ParseARN(g.ARN)
		if at := l.arnAt[g.Key]; err == nil && c.Region != "" && arn.Region != c.Region {
			l.value(at, fileKey(at, joinKey(joinKey(groupsKey, g.Key), "arn")), g.ARN,
				fmt.Sprintf("must be of region %s, which %s sets", quote(c.Region), c.Origin("region")))
		}
		id := cmp.Or(g.ARN, g.Name)
		first, ok := ownership[id]
		if !ok {
			ownership[id] = g
		} else if first.Ownership != g.Ownership {
			at := cmp.Or(l.ownershipAt[g.Key], l.groupAt[g.Key])
			l.value(at, joinKey(joinKey(groupsKey, g.Key), "ownership"), string(g.Ownership),
				fmt.Sprintf("must be %s as for %s at %s, which is the same target group", first.Ownership, first.Key, first.Source))
		}
	}
}

// mustDiffer reports two settings that are the same, at the one that was written.
func (l *loader) mustDiffer(key, other string) {
	if _, written := l.cfg.origins[key]; !written {
		key, other = other, key
	}
	at := l.cfg.origins[key] // their defaults differ: one of them was written
	s, _ := findSetting(key)
	l.value(at, fileKey(at, key), s.value(l.cfg).String(), "must differ from "+other)
}

// fileKey is the key for errors in files; a flag or variable speaks for itself.
func fileKey(at origin, key string) string {
	if at.line == 0 {
		return ""
	}
	return key
}
