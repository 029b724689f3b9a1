package config

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// kind is what a YAML node is, as far as the schema cares.
type kind uint8

const (
	kindNull kind = iota
	kindString
	kindInteger
	kindFloat
	kindBool
	kindMapping
	kindSequence
	kindRefused // reported already: nothing more is said about it
)

// node is a YAML node without YAML's abbreviations: no anchors, aliases, merges or tags. A mapping has each key once.
type node struct {
	kind  kind
	line  int
	text  string  // of a scalar, as written (a string without its quotes)
	pairs []pair  // of a mapping
	items []*node // of a list
}

type pair struct {
	key   string
	line  int
	value *node
}

// shown is the value as errors repeat it; nil for mappings and lists.
func (n *node) shown() *string {
	switch n.kind {
	case kindString, kindInteger, kindFloat, kindBool:
		return &n.text
	}
	return nil
}

// maxDepth bounds the nesting that is handed to the parser, which recurses. The schema needs five levels.
const maxDepth = 100

// parseFile reads one file's content. It returns nil for a file that says nothing.
func parseFile(path string, data []byte, p *problems) *node {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if line, rule := precheck(data); rule != "" {
		p.key(origin{path, line}, "", rule)
		return nil
	}
	docs, line, err := parseYAML(data)
	if err != nil {
		p.key(origin{path, line}, "", "not valid YAML: "+err.Error())
		return nil
	}
	var root *node
	for _, doc := range docs {
		if doc.Body == nil {
			continue
		}
		at := origin{path, lineOf(doc.Body, 1)}
		if _, ok := doc.Body.(*ast.DirectiveNode); ok {
			p.key(at, "", "YAML directives are not supported")
			continue
		}
		if root != nil {
			p.key(at, "", "must be a single YAML document, without a second ---")
			return root
		}
		root = (&converter{path: path, problems: p}).convert(doc.Body, "", at.line)
	}
	return root
}

// precheck finds what the parser must not be given.
func precheck(data []byte) (line int, rule string) {
	depth, marks := 0, 0
	line = 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return line, "not valid YAML: not UTF-8"
		}
		switch r {
		case 0:
			return line, "not valid YAML: NUL byte"
		case '\n':
			line, marks = line+1, 0
		case '\r':
			if i+1 == len(data) || data[i+1] != '\n' {
				line, marks = line+1, 0
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '-', '?', '!', '&', ':':
			if i+1 < len(data) && data[i+1] == ' ' || r == '!' || r == '&' {
				marks++
			}
		}
		if depth > maxDepth || marks > maxDepth {
			return line, "not valid YAML: nested too deeply"
		}
		i += size
	}
	return 0, ""
}

// parseYAML contains the parser: a panic in it is an error in the file as far as anybody can tell.
func parseYAML(data []byte) (docs []*ast.DocumentNode, line int, err error) {
	defer func() {
		if r := recover(); r != nil {
			docs, line, err = nil, 1, fmt.Errorf("the parser cannot read it (%v)", r)
		}
	}()
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) {
			line = 1
			if tk := at.GetToken(); tk != nil && tk.Position != nil {
				line = max(1, tk.Position.Line)
			}
			return nil, line, errors.New(oneLine(at.GetMessage()))
		}
		return nil, 1, errors.New(oneLine(err.Error()))
	}
	return file.Docs, 0, nil
}

// oneLine keeps the first line of the parser's message, printable.
func oneLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	s = strconv.Quote(s)
	return strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`)
}

// lineOf returns the node's line, or the line around it where the parser gives none.
func lineOf(n ast.Node, around int) int {
	if n == nil {
		return around
	}
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key
	}
	tk := n.GetToken()
	if tk == nil || tk.Position == nil || tk.Position.Line < 1 {
		return around
	}
	return tk.Position.Line
}

// converter turns the parser's tree into nodes and refuses what the schema could not follow to a line.
type converter struct {
	path string
	*problems
}

func (c *converter) convert(in ast.Node, path string, around int) *node {
	out := &node{line: lineOf(in, around)}
	at := origin{c.path, out.line}
	switch n := in.(type) {
	case nil:
	case *ast.NullNode:
		// An absent value is reported where its key stands.
		out.line = around
	case *ast.StringNode:
		out.kind, out.text = kindString, n.Value
	case *ast.LiteralNode:
		out.kind = kindString
		if n.Value != nil {
			out.text = n.Value.Value
		}
	case *ast.IntegerNode:
		out.kind, out.text = kindInteger, n.Token.Value
	case *ast.FloatNode:
		out.kind, out.text = kindFloat, n.Token.Value
	case *ast.InfinityNode:
		out.kind, out.text = kindFloat, n.Token.Value
	case *ast.NanNode:
		out.kind, out.text = kindFloat, n.Token.Value
	case *ast.BoolNode:
		out.kind, out.text = kindBool, n.Token.Value
	case *ast.SequenceNode:
		out.kind = kindSequence
		for _, v := range n.Values {
			out.items = append(out.items, c.convert(v, path, out.line))
		}
	case *ast.MappingValueNode:
		out.kind = kindMapping
		c.addPair(out, n, path)
	case *ast.MappingNode:
		out.kind = kindMapping
		for _, v := range n.Values {
			c.addPair(out, v, path)
		}
	case *ast.AnchorNode, *ast.AliasNode:
		out.kind = kindRefused
		c.key(at, path, "anchors and aliases are not supported (a value that begins with & or * needs quotes)")
	case *ast.TagNode:
		out.kind = kindRefused
		c.key(at, path, "tags are not supported (a value that begins with ! needs quotes)")
	default:
		out.kind = kindRefused
		c.key(at, path, "must be a plain value, a list or a mapping")
	}
	return out
}

// addPair adds one key and its value to a mapping. A pair that is refused is left out: it has been reported.
func (c *converter) addPair(to *node, v *ast.MappingValueNode, path string) {
	line := lineOf(v.Key, to.line)
	at := origin{c.path, line}
	var key string
	switch k := v.Key.(type) {
	case *ast.StringNode:
		key = k.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		key = k.GetToken().Value
	case *ast.MergeKeyNode:
		c.key(at, joinKey(path, "<<"), "merge keys are not supported")
		return
	default:
		c.key(at, path, "a key must be a plain string")
		return
	}
	for _, p := range to.pairs {
		if p.key == key {
			c.key(at, joinKey(path, key), fmt.Sprintf("duplicate key: it is already at %s", origin{c.path, p.line}))
			return
		}
	}
	to.pairs = append(to.pairs, pair{key: key, line: line, value: c.convert(v.Value, joinKey(path, key), line)})
}
