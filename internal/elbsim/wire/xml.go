package wire

import (
	"bytes"
	"encoding/xml"
	"strconv"
)

// Writer writes the plain XML of awsQuery replies. Empty lists are written, as AWS does, where encoding/xml would
// leave them out.
type Writer struct{ bytes.Buffer }

// In writes an element around what body writes.
func (x *Writer) In(name string, body func()) {
	x.WriteString("<" + name + ">")
	body()
	x.WriteString("</" + name + ">")
}

// Text writes an element with text.
func (x *Writer) Text(name, value string) {
	x.WriteString("<" + name + ">")
	// A bytes.Buffer never fails.
	_ = xml.EscapeText(&x.Buffer, []byte(value))
	x.WriteString("</" + name + ">")
}

// Optional writes an element with text, or nothing if the text is empty.
func (x *Writer) Optional(name, value string) {
	if value != "" {
		x.Text(name, value)
	}
}

// Number writes an element with a number.
func (x *Writer) Number(name string, n int) { x.Text(name, strconv.Itoa(n)) }

// List writes a list of members.
func List[T any](x *Writer, name string, items []T, each func(T)) {
	x.In(name, func() {
		for _, item := range items {
			x.In("member", func() { each(item) })
		}
	})
}

// Reply writes the result part of a successful reply.
type Reply func(x *Writer)

// NoResult is the Reply of an operation that answers nothing.
func NoResult(*Writer) {}

// EncodeReply returns the body of a success. service is the XML namespace.
func EncodeReply(service, action, requestID string, result Reply) []byte {
	x := &Writer{}
	x.WriteString("<" + action + `Response xmlns="` + service + `">`)
	x.In(action+"Result", func() { result(x) })
	x.In("ResponseMetadata", func() { x.Text("RequestId", requestID) })
	x.WriteString("</" + action + "Response>\n")
	return x.Bytes()
}

// EncodeError returns the body of an error. service is the XML namespace.
func EncodeError(service, requestID string, e *Error) []byte {
	x := &Writer{}
	x.WriteString(`<ErrorResponse xmlns="` + service + `">`)
	x.In("Error", func() {
		kind := "Sender"
		if e.Status >= 500 {
			kind = "Receiver"
		}
		x.Text("Type", kind)
		x.Text("Code", e.Code)
		x.Text("Message", e.Message)
	})
	x.Text("RequestId", requestID)
	x.WriteString("</ErrorResponse>\n")
	return x.Bytes()
}
