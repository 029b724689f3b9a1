package elbsim

import (
	"bytes"
	"encoding/xml"
	"strconv"
)

// xmlWriter writes the plain XML of awsQuery replies. Empty lists are written, as AWS does, where encoding/xml would
// leave them out.
type xmlWriter struct{ bytes.Buffer }

// in writes an element around what body writes.
func (x *xmlWriter) in(name string, body func()) {
	x.WriteString("<" + name + ">")
	body()
	x.WriteString("</" + name + ">")
}

// text writes an element with text.
func (x *xmlWriter) text(name, value string) {
	x.WriteString("<" + name + ">")
	// A bytes.Buffer never fails.
	_ = xml.EscapeText(&x.Buffer, []byte(value))
	x.WriteString("</" + name + ">")
}

// optional writes an element with text, or nothing if the text is empty.
func (x *xmlWriter) optional(name, value string) {
	if value != "" {
		x.text(name, value)
	}
}

func (x *xmlWriter) number(name string, n int) { x.text(name, strconv.Itoa(n)) }

// xmlList writes a list of members.
func xmlList[T any](x *xmlWriter, name string, items []T, each func(T)) {
	x.in(name, func() {
		for _, item := range items {
			x.in("member", func() { each(item) })
		}
	})
}

// reply writes the result part of a successful reply.
type reply func(x *xmlWriter)

func noResult(*xmlWriter) {}

func encodeReply(service, action, requestID string, result reply) []byte {
	x := &xmlWriter{}
	x.WriteString("<" + action + `Response xmlns="` + service + `">`)
	x.in(action+"Result", func() { result(x) })
	x.in("ResponseMetadata", func() { x.text("RequestId", requestID) })
	x.WriteString("</" + action + "Response>\n")
	return x.Bytes()
}

func encodeError(service, requestID string, e *APIError) []byte {
	x := &xmlWriter{}
	x.WriteString(`<ErrorResponse xmlns="` + service + `">`)
	x.in("Error", func() {
		kind := "Sender"
		if e.Status >= 500 {
			kind = "Receiver"
		}
		x.text("Type", kind)
		x.text("Code", e.Code)
		x.text("Message", e.Message)
	})
	x.text("RequestId", requestID)
	x.WriteString("</ErrorResponse>\n")
	return x.Bytes()
}
