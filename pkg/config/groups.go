package config

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"berth/pkg/target"
)

const groupsKey = "target_groups"

// keyPattern keeps keys usable in labels, where , : and / separate.
var keyPattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$`)

const keyRule = "a target group's key must be 1 to 64 letters, digits, dots, hyphens and underscores, and begin with a letter or digit"

// groupField reads one key of a target group. key is its whole path.
type groupField func(l *loader, g *Group, key string, at origin, n *node)

// groupFields is the schema of a target group.
var groupFields = map[string]groupField{
	"name": func(l *loader, g *Group, key string, at origin, n *node) {
		l.scalar(text{&g.Name, checkName}, key, at, n)
	},
	"arn": func(l *loader, g *Group, key string, at origin, n *node) {
		l.scalar(text{&g.ARN, checkARN}, key, at, n)
	},
	"containers":     (*loader).containers,
	"container_port": (*loader).containerPort,
	"register_when": func(l *loader, g *Group, key string, at origin, n *node) {
		l.scalar(text{(*string)(&g.RegisterWhen), oneOf(string(WhenRunning), string(WhenHealthy))}, key, at, n)
	},
	"deregister_when_unhealthy": func(l *loader, g *Group, key string, at origin, n *node) {
		l.scalar(boolean{&g.DeregisterWhenUnhealthy}, key, at, n)
	},
	"stop_signals": (*loader).stopSignals,
	"ownership": func(l *loader, g *Group, key string, at origin, n *node) {
		l.scalar(text{(*string)(&g.Ownership), oneOf(string(OwnLedger), string(OwnInstance))}, key, at, n)
	},
	"labels": func(l *loader, g *Group, key string, at origin, n *node) {
		l.scalar(boolean{&g.Labels}, key, at, n)
	},
	"required": func(l *loader, g *Group, key string, at origin, n *node) {
		l.scalar(boolean{&g.Required}, key, at, n)
	},
}

// containerFields are the keys of a rule.
var containerFields = []string{"labels", "image", "name"}

func checkARN(s string) error {
	_, err := ParseARN(s)
	return err
}

// groups reads the mapping of target groups of one file.
func (l *loader) groups(file string, n *node) {
	if n.kind == kindNull {
		return
	}
	if n.kind != kindMapping {
		l.refuse(origin{file, n.line}, groupsKey, n, "must be a mapping of target groups by their keys")
		return
	}
	for _, p := range n.pairs {
		at, key := origin{file, p.line}, joinKey(groupsKey, p.key)
		if !keyPattern.MatchString(p.key) {
			l.key(at, key, keyRule)
			continue
		}
		if first, ok := l.groupAt[p.key]; ok {
			l.key(at, key, "duplicate target group: it is already at "+first.String())
			continue
		}
		l.groupAt[p.key] = at
		l.group(at, key, p)
	}
}

// group reads one target group. It is kept even if some of it is wrong, so that later checks find what else is.
func (l *loader) group(at origin, key string, p pair) {
	g := defaultGroup(p.key)
	g.Source = at.String()
	found := make(map[string]origin)
	switch p.value.kind {
	case kindNull:
	case kindMapping:
		for _, f := range p.value.pairs {
			fieldAt, fieldKey := origin{at.name, f.line}, joinKey(key, f.key)
			read, ok := groupFields[f.key]
			if !ok {
				l.key(fieldAt, fieldKey, "unknown key"+DidYouMean(f.key, slices.Sorted(maps.Keys(groupFields))))
				continue
			}
			found[f.key] = fieldAt
			read(l, &g, fieldKey, fieldAt, f.value)
		}
	default:
		l.refuse(at, key, p.value, "must be a mapping")
		return
	}
	l.checkGroup(&g, key, at, found)
	l.cfg.Groups = append(l.cfg.Groups, g)
}

// checkGroup applies the rules between the keys of one group. found are the keys that were written.
func (l *loader) checkGroup(g *Group, key string, at origin, found map[string]origin) {
	_, hasName := found["name"]
	arnAt, hasARN := found["arn"]
	switch {
	case hasName && hasARN:
		l.key(arnAt, joinKey(key, "arn"), "give name or arn, not both: the ARN holds the name")
	case !hasName && !hasARN:
		g.Name = g.Key
		if err := checkName(g.Name); err != nil {
			l.key(at, key, "without name or arn the key is the group's name in AWS, and that "+err.Error())
		}
	}
	if hasARN {
		l.arnAt[g.Key] = arnAt
	}
	if ownAt, ok := found["ownership"]; ok {
		l.ownershipAt[g.Key] = ownAt
	}
	if labelsAt, ok := found["labels"]; ok && !g.Labels {
		if _, ok := found["containers"]; !ok {
			l.value(labelsAt, joinKey(key, "labels"), "false", "needs containers: without labels and without a rule nothing could ever be registered")
		}
	}
}

// containers reads the rule of a group.
func (l *loader) containers(g *Group, key string, at origin, n *node) {
	const empty = "must hold at least one of labels, image and name: an empty rule would match every container"
	if n.kind == kindNull || n.kind == kindMapping && len(n.pairs) == 0 {
		l.key(at, key, empty)
		return
	}
	if n.kind != kindMapping {
		l.refuse(at, key, n, "must be a mapping with labels, image or name")
		return
	}
	rule := &Containers{}
	for _, p := range n.pairs {
		fieldAt, fieldKey := origin{at.name, p.line}, joinKey(key, p.key)
		switch p.key {
		case "image":
			l.scalar(text{&rule.Image, checkPattern}, fieldKey, fieldAt, p.value)
		case "name":
			l.scalar(text{&rule.Name, checkPattern}, fieldKey, fieldAt, p.value)
		case "labels":
			rule.Labels = l.ruleLabels(fieldKey, fieldAt, p.value)
		default:
			l.key(fieldAt, fieldKey, "unknown key"+DidYouMean(p.key, containerFields))
		}
	}
	g.Containers = rule
}

// ruleLabels reads the labels of a rule.
func (l *loader) ruleLabels(key string, at origin, n *node) map[string]string {
	if n.kind == kindNull || n.kind == kindMapping && len(n.pairs) == 0 {
		l.key(at, key, "must hold at least one label: an empty rule would match every container")
		return nil
	}
	if n.kind != kindMapping {
		l.refuse(at, key, n, "must be a mapping of labels to patterns")
		return nil
	}
	labels := make(map[string]string, len(n.pairs))
	for _, p := range n.pairs {
		labelAt, labelKey := origin{at.name, p.line}, joinKey(key, p.key)
		if strings.TrimSpace(p.key) == "" {
			l.key(labelAt, labelKey, "a label's name must not be empty")
			continue
		}
		var pattern string
		l.scalar(text{&pattern, checkPattern}, labelKey, labelAt, p.value)
		labels[p.key] = pattern
	}
	return labels
}

// checkPattern accepts any text that a pattern can be. "*" alone is a choice that one has to write down.
func checkPattern(s string) error {
	switch {
	case strings.TrimSpace(s) == "":
		return errors.New(`must not be empty ("*" matches anything)`)
	case s != strings.TrimSpace(s):
		return errors.New("must not begin or end with a space or line break")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("must be one line without control characters")
	}
	return nil
}

// stopSignals reads a list of signals. The empty list is the default.
func (l *loader) stopSignals(g *Group, key string, at origin, n *node) {
	switch n.kind {
	case kindNull:
		l.key(at, key, "has no value: give it one, or remove the key")
		return
	case kindSequence:
	default:
		l.refuse(origin{at.name, n.line}, key, n, "must be a list of signals, like [INT, QUIT]")
		return
	}
	for _, item := range n.items {
		l.scalar(signal{&g.StopSignals}, key, at, item)
	}
}

// signal adds to a set.
type signal struct{ to *target.Signals }

func (v signal) set(s string) error {
	n, ok := target.ParseSignal(s)
	if !ok {
		return target.ErrSignal
	}
	*v.to = v.to.With(n)
	return nil
}
func (v signal) String() string { return v.to.String() }
func (v signal) kinds() ([]kind, string) {
	return []kind{kindString, kindInteger}, target.ErrSignal.Error()
}

// containerPort reads "8080", 8080 or "8080/udp".
func (l *loader) containerPort(g *Group, key string, at origin, n *node) {
	l.scalar(portProto{&g.ContainerPort}, key, at, n)
}

type portProto struct{ to *target.PortProto }

func (v portProto) set(s string) error {
	p, err := target.ParsePortProto(s)
	switch {
	case errors.Is(err, target.ErrPort):
		return target.ErrPort
	case err != nil:
		return errors.New("must be a port with tcp or udp, like 8080/tcp")
	case p.Protocol != target.TCP && p.Protocol != target.UDP:
		return fmt.Errorf("must be tcp or udp: load balancers have no %s", p.Protocol)
	}
	*v.to = p
	return nil
}
func (v portProto) String() string { return v.to.String() }
func (v portProto) kinds() ([]kind, string) {
	return []kind{kindString, kindInteger}, "must be a port with its protocol, like 8080/tcp"
}
