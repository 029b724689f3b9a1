package discovery

import "strings"

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
