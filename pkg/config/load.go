package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Options say where the configuration comes from. The zero value is that of an agent started without flags.
type Options struct {
	// ConfigPath is the file that --config names. Empty: BERTH_CONFIG, else DefaultPath, and only a default file may
	// be missing.
	ConfigPath string
	// ConfDir holds further files (*.yaml). Empty: conf.d beside the file. It need not exist.
	ConfDir string
	// Flags are the flags that were given, by their names without dashes; those that are not settings are ignored.
	// Only target-group may hold more than one value.
	Flags map[string][]string
	// Getenv reads the environment; nil: os.Getenv. An empty variable counts as absent.
	Getenv func(string) string
}

// file is a file's content before it is understood.
type file struct {
	path string
	data []byte
}

// Load reads and checks the whole configuration: flags before BERTH_* variables before files before defaults. Its
// error joins an *Error for each thing that is wrong, in the order of files and lines.
func Load(o Options) (*Config, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	var p problems
	path, given := o.path()
	files := readFiles(path, cmp.Or(o.ConfDir, filepath.Join(filepath.Dir(path), confDirName)), given, &p)
	return parse(o, path, files, p)
}

// path returns the main file, and whether somebody named it.
func (o Options) path() (path string, given bool) {
	if p := cmp.Or(o.ConfigPath, o.Getenv(configVariable)); p != "" {
		return p, true
	}
	return DefaultPath, false
}

// readFiles reads the main file and those of conf.d, in the order of their names. The default file and conf.d may be
// missing.
func readFiles(path, confDir string, given bool, p *problems) []file {
	var files []file
	read := func(path string, mayMiss bool) {
		data, err := readFile(path)
		if err == nil {
			files = append(files, file{path, data})
		} else if !mayMiss || !errors.Is(err, fs.ErrNotExist) {
			*p = append(*p, unreadable(path, err))
		}
	}
	read(path, !given)
	entries, err := os.ReadDir(confDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		*p = append(*p, unreadable(confDir, err))
	}
	for _, e := range entries { // ReadDir sorts
		full := filepath.Join(confDir, e.Name())
		switch ext := filepath.Ext(e.Name()); {
		case strings.HasPrefix(e.Name(), "."):
		case ext == confFileExt:
			read(full, false)
		case ext == ".yml":
			*p = append(*p, &Error{Source: full, Rule: "must be named *.yaml to be read; rename or remove it"})
		}
	}
	return files
}

// readFile reads at most maxFileBytes: a configuration that is larger is something else.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("larger than %d KiB", maxFileBytes>>10)
	}
	return data, nil
}

// unreadable says why a file cannot be read, without the path that the error begins with already.
func unreadable(path string, err error) *Error {
	var pathErr *fs.PathError
	reason := err.Error()
	if errors.As(err, &pathErr) {
		reason = pathErr.Err.Error()
	}
	return &Error{Source: path, Rule: "cannot be read: " + reason, cause: err}
}

// loader is the state of one Load.
type loader struct {
	problems
	cfg         *Config
	main        string
	groupAt     map[string]origin // first mention of each group's key
	arnAt       map[string]origin
	ownershipAt map[string]origin
}

// parse is Load without the file system.
func parse(o Options, path string, files []file, found problems) (*Config, error) {
	l := &loader{
		problems: found, cfg: Default(), main: path,
		groupAt: map[string]origin{}, arnAt: map[string]origin{}, ownershipAt: map[string]origin{},
	}
	l.cfg.origins, l.cfg.main, l.cfg.saying = map[string]origin{}, path, map[string]bool{}
	says := false // some file says something
	for _, f := range files {
		l.cfg.Files = append(l.cfg.Files, f.path)
		if root := parseFile(f.path, f.data, &l.problems); root != nil && root.kind != kindNull {
			says, l.cfg.saying[f.path] = true, true
			l.file(f.path, root)
		}
	}
	l.systemd(o.Getenv)
	l.variables(o.Getenv)
	l.flags(o.Flags)
	l.targetGroups(o, says)
	slices.SortFunc(l.cfg.Groups, func(a, b Group) int { return cmp.Compare(a.Key, b.Key) })
	l.crossCheck()
	if len(l.cfg.Groups) == 0 && len(l.problems) == 0 {
		l.noGroups()
	}
	if len(l.problems) > 0 {
		return nil, l.err()
	}
	return l.cfg, nil
}

// file reads one file's mapping.
func (l *loader) file(path string, root *node) {
	if root.kind != kindMapping {
		l.refuse(origin{path, root.line}, "", root, "must be a mapping of keys, such as target_groups")
		return
	}
	for _, p := range root.pairs {
		if p.key == groupsKey {
			l.groups(path, p.value)
			continue
		}
		l.keys(path, "", p)
	}
}

// keys reads one key that is a setting or a section of settings.
func (l *loader) keys(file, section string, p pair) {
	at := origin{file, p.line}
	shown := joinKey(section, p.key)
	key := p.key
	if section != "" {
		key = section + "." + p.key
	}
	if s, ok := findSetting(key); ok && !strings.Contains(p.key, ".") {
		if first, ok := l.cfg.origins[key]; ok {
			l.key(at, shown, "duplicate key: it is already at "+first.String())
			return
		}
		l.cfg.origins[key] = at
		l.scalar(s.value(l.cfg), key, at, p.value)
		return
	}
	if section == "" && slices.Contains(sections(), p.key) {
		switch p.value.kind {
		case kindNull:
		case kindMapping:
			for _, inner := range p.value.pairs {
				l.keys(file, p.key, inner)
			}
		default:
			l.refuse(at, shown, p.value, "must be a mapping")
		}
		return
	}
	l.key(at, shown, "unknown key"+suggest(section, p.key))
}

// sections are the keys that hold settings.
func sections() []string {
	var out []string
	for _, s := range settings {
		if section, _, found := strings.Cut(s.key, "."); found && !slices.Contains(out, section) {
			out = append(out, section)
		}
	}
	return out
}

// suggest finds the key that an unknown one was meant to be: one near it in the same section, or the same word in
// another.
func suggest(section, key string) string {
	var here []string
	for _, s := range settings {
		in, leaf, found := strings.Cut(s.key, ".")
		if !found {
			in, leaf = "", s.key
		}
		if in == section {
			here = append(here, leaf)
		}
	}
	if section == "" {
		here = append(append(here, sections()...), groupsKey)
	}
	if near := DidYouMean(key, here); near != "" {
		return near
	}
	for _, s := range settings {
		in, leaf, found := strings.Cut(s.key, ".")
		switch {
		case found && leaf == key:
			return "; did you mean " + s.key + "?"
		case found && s.key == key:
			return "; write " + in + ": and below it, indented, " + leaf + ":"
		}
	}
	if _, ok := groupFields[key]; ok {
		return "; it belongs to a target group: " + groupsKey + ".KEY." + key
	}
	return ""
}

// scalar reads one value from a file.
func (l *loader) scalar(v value, key string, at origin, n *node) {
	kinds, rule := v.kinds()
	if n.kind == kindNull {
		l.key(at, key, "has no value: give it one, or remove the key")
		return
	}
	if !slices.Contains(kinds, n.kind) {
		l.refuse(origin{at.name, n.line}, key, n, rule)
		return
	}
	if err := v.set(n.text); err != nil {
		l.value(origin{at.name, n.line}, key, n.text, err.Error())
	}
}

// refuse reports a node of the wrong kind, with its value if it has one that can be shown.
func (l *loader) refuse(at origin, key string, n *node, rule string) {
	switch n.kind {
	case kindRefused:
		return
	case kindMapping:
		rule += ", not a mapping"
	case kindSequence:
		rule += ", not a list"
	}
	l.problems = append(l.problems, &Error{Source: at.name, Line: at.line, Key: key, Value: n.shown(), Rule: rule})
}

// noGroups says what to write where nothing names a target group.
func (l *loader) noGroups() {
	const write = `write "target_groups: {NAME: {}}", where NAME is a target group's name in AWS`
	e := &Error{Source: l.main, cause: ErrNoGroups}
	if len(l.cfg.Files) == 0 {
		e.Rule = "no such file: " + write + ", or start with --" + TargetGroupFlag + " NAME"
	} else {
		e.Source, e.Line, e.Key = l.cfg.Files[0], 1, groupsKey
		e.Rule = "no target group in " + strings.Join(l.cfg.Files, ", ") + ": " + write
	}
	l.problems = append(l.problems, e)
}
