package discovery

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// matches reports whether every field of m that is set matches the container. A Match without any field set matches
// nothing: a rule that takes every container on a host has to be written down as such ("*").
func (m *Match) matches(f *Facts) bool {
	if m == nil || m.empty() {
		return false
	}
	if m.Image != "" && !Glob(m.Image, f.Image) {
		return false
	}
	if m.Name != "" && !Glob(m.Name, f.Name) {
		return false
	}
	for key, pattern := range m.Labels {
		value, ok := f.Labels[key]
		if !ok || !Glob(pattern, value) {
			return false
		}
	}
	return true
}

func (m *Match) empty() bool { return m.Image == "" && m.Name == "" && len(m.Labels) == 0 }

// byID reports whether the user named the image by its id: what a rule says of images' names does not match it then.
func byID(image string) bool {
	if strings.HasPrefix(image, "sha256:") {
		return true
	}
	return len(image) >= 12 && len(image) <= 64 && strings.Trim(image, "0123456789abcdef") == ""
}

// Glob reports whether s matches pattern, in which * stands for any run of characters, none and slashes included, and
// every other character for itself. It takes time proportional to len(pattern) × len(s) at worst, whatever the
// pattern: it goes back to the last star only, since an earlier one can gain nothing that the last one cannot.
func Glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// leftAlone says why rules do not take a container that somebody else manages; empty: they may. A label takes such a
// container on purpose.
func leftAlone(f *Facts) string {
	for key := range f.Labels {
		if strings.HasPrefix(key, "com.amazonaws.ecs.") {
			return "Amazon ECS manages this container and registers it itself"
		}
	}
	if strings.EqualFold(f.Labels["com.docker.compose.oneoff"], "true") {
		return "it is a one-off run of docker compose"
	}
	return ""
}

// Mismatch says why the rule does not take a container by itself: the first of its conditions that fails, in one
// sentence. It is empty where it does take it. A rule without conditions takes nothing: labels alone name its group.
func (r *Rule) Mismatch(f *Facts) string {
	m := r.Match
	switch {
	case m == nil || m.empty():
		return "it has no rule: labels alone bring containers in"
	case m.Image != "" && !Glob(m.Image, f.Image):
		return fmt.Sprintf("its rule wants image %s, and the container's is %s", quote(m.Image), quote(f.Image))
	case m.Name != "" && !Glob(m.Name, f.Name):
		return fmt.Sprintf("its rule wants name %s, and the container's is %s", quote(m.Name), quote(f.Name))
	}
	for _, key := range slices.Sorted(maps.Keys(m.Labels)) {
		value, ok := f.Labels[key]
		if !ok {
			return fmt.Sprintf("its rule wants label %s, which the container does not have", quote(key))
		}
		if !Glob(m.Labels[key], value) {
			return fmt.Sprintf("its rule wants label %s to be %s, and it is %s", quote(key), quote(m.Labels[key]), quote(value))
		}
	}
	return ""
}
