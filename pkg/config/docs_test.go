package config

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readRepo(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// deploy/berth.yaml says nothing as it is shipped, and with its comments removed shows every key, with its default.
func TestShippedFile(t *testing.T) {
	shipped := readRepo(t, "deploy/berth.yaml")
	_, err := fromText(shipped, Options{})
	var e *Error
	if !errors.Is(err, ErrNoGroups) || !errors.As(err, &e) || e.Key != groupsKey {
		t.Fatalf("as shipped: %v; want no group, and nothing else", err)
	}
	if c, err := fromText(shipped, Options{Flags: map[string][]string{"target-group": {"web"}}}); err != nil || len(c.Groups) != 1 {
		t.Errorf("as shipped, with a flag: %v", err)
	}
	c, err := fromText(uncommented(shipped), Options{})
	if err != nil {
		t.Fatalf("uncommented:\n%v", err)
	}
	var differs []string
	for _, change := range Changes(Default(), c) {
		differs = append(differs, change.Key)
	}
	if diff := cmp.Diff([]string{"instance_id", "region"}, differs); diff != "" {
		t.Errorf("keys that are not shown with their default: -want +got:\n%s", diff)
	}
	for _, s := range settings {
		if !strings.HasPrefix(c.Origin(s.key), mainFile+":") {
			t.Errorf("%s is not shown", s.key)
		}
	}
	web, _ := c.Group("web")
	want := defaultGroup("web")
	want.Name, want.Containers, want.ContainerPort, want.Source = web.Name, web.Containers, web.ContainerPort, web.Source
	if diff := cmp.Diff(want, web); diff != "" {
		t.Errorf("group web is not shown with its defaults: -want +got:\n%s", diff)
	}
	for _, key := range append(slices.Collect(maps.Keys(groupFields)), containerFields...) {
		if !strings.Contains(shipped, "#    "+key+":") && !strings.Contains(shipped, "#      "+key+":") {
			t.Errorf("a group's %s is not shown", key)
		}
	}
}

// docs/configuration.md has a row for every key, with its variable, flag and default, and no row for anything else.
func TestDocumentation_settings(t *testing.T) {
	rows := map[string]string{}
	for line := range strings.Lines(readRepo(t, "docs/configuration.md")) {
		cells := strings.Split(line, "|")
		if len(cells) > 3 && strings.HasPrefix(cells[1], " `") && strings.Contains(line, "`BERTH_") {
			rows[strings.Trim(cells[1], " `")] = line
		}
	}
	for _, s := range Settings() {
		row, ok := rows[s.Key]
		if !ok {
			t.Errorf("%s has no row", s.Key)
			continue
		}
		delete(rows, s.Key)
		for _, what := range []string{s.Env, s.Default} {
			if what != "" && !strings.Contains(row, "`"+what+"`") {
				t.Errorf("%s: `%s` is not in its row: %s", s.Key, what, row)
			}
		}
		if s.Flag != "" && !strings.Contains(row, "`--"+s.Flag+"`") || s.Flag == "" && strings.Contains(row, "`--") {
			t.Errorf("%s: its flag is not %q as its row says: %s", s.Key, s.Flag, row)
		}
		if s.Reload != strings.Contains(row, "| yes |") {
			t.Errorf("%s: its row does not say that reload is %v: %s", s.Key, s.Reload, row)
		}
	}
	for key := range rows {
		t.Errorf("%s has a row and does not exist", key)
	}
}

func TestDocumentation_groups(t *testing.T) {
	doc := readRepo(t, "docs/configuration.md")
	for key := range groupFields {
		if !strings.Contains(doc, "| `"+key+"` |") {
			t.Errorf("a group's %s has no row", key)
		}
	}
	for _, key := range containerFields {
		if !strings.Contains(doc, "| `containers."+key+"` |") {
			t.Errorf("a rule's %s has no row", key)
		}
	}
	for _, variable := range []string{TargetGroupVariable, configVariable, "STATE_DIRECTORY", "RUNTIME_DIRECTORY"} {
		if !strings.Contains(doc, "`"+variable+"`") {
			t.Errorf("%s is not mentioned", variable)
		}
	}
}

// Every example in the documentation is a file that loads, or an error that appears as it is written there.
func TestDocumentation_examples(t *testing.T) {
	for _, path := range []string{"docs/configuration.md", "README.md"} {
		_, rest, found := strings.Cut(readRepo(t, path), "```yaml\n")
		if !found {
			t.Errorf("%s has no example", path)
		}
		for found {
			var example string
			example, rest, _ = strings.Cut(rest, "```")
			if _, err := fromText(example, Options{}); err != nil {
				t.Errorf("%s: %v\n%s", path, err, example)
			}
			_, rest, found = strings.Cut(rest, "```yaml\n")
		}
	}
	_, err := fromText("\n\n\n\n\n\n\n\n\n\n\ntarget_groups: {web: {container_port: 80800}}", Options{})
	if err == nil || !strings.Contains(readRepo(t, "docs/configuration.md"), err.Error()) {
		t.Errorf("the documentation does not show the error as it is: %v", err)
	}
}
