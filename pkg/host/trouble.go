package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// exchange is what became of the last request of a question, as the wire has it. The SDK's errors repeat the whole way
// of a request and hide its status.
type exchange struct {
	token  bool // it asked for the session token, not for the item
	status int  // of the answer; 0: there was none
	err    error
}

type exchangeKey struct{}

// unansweredError is a question that got no answer, or none that says anything of the item. Its text is short enough for a
// status line; what the SDK says of it is wrapped.
type unansweredError struct {
	exchange
	err error
}

func (e *unansweredError) Error() string {
	switch {
	case e.late():
		return fmt.Sprintf("no answer within %s", requestTimeout)
	case e.status == 0 && e.exchange.err != nil:
		return e.exchange.err.Error()
	case e.status != http.StatusOK && e.token:
		return fmt.Sprintf("HTTP %d to the request for a session token", e.status)
	case e.status != http.StatusOK:
		return fmt.Sprintf("HTTP %d", e.status)
	default:
		return e.err.Error()
	}
}

// Unwrap returns the SDK's error.
func (e *unansweredError) Unwrap() error { return e.err }

// late reports whether time ran out.
func (e *unansweredError) late() bool {
	var op net.Error
	return e.status == 0 && errors.Is(e.exchange.err, context.DeadlineExceeded) || errors.As(e.exchange.err, &op) && op.Timeout()
}

// trouble is a question that cannot be answered, for people.
type trouble struct {
	about        string // the question; empty: no question is answered for this reason
	text, change string // one line each
}

// troubleOf says what is wrong with a question, and what to change.
func troubleOf(question string, err error) trouble {
	const again = "wait: it is asked again every few seconds"
	var e *unansweredError
	switch {
	case !errors.As(err, &e):
		return trouble{question, err.Error(), "look at what answers in the place of the instance metadata service (AWS_EC2_METADATA_SERVICE_ENDPOINT)"}
	case e.late():
		return trouble{"", e.Error(), "see that no firewall rule of this host stops it; in a container, run the agent with --network host (the hop limit should stay 1)"}
	case e.status == 0:
		return trouble{"", e.Error(), "see that 169.254.169.254 can be reached, or that AWS_EC2_METADATA_SERVICE_ENDPOINT is right where it is set"}
	case e.status == http.StatusForbidden: // what a service that is switched off answers
		return trouble{"", "HTTP 403", "enable it: aws ec2 modify-instance-metadata-options --http-endpoint enabled --instance-id ID"}
	case e.token && e.status < http.StatusInternalServerError:
		return trouble{"", e.Error(), "look at what answers in its place: it is not version 2 of the service (AWS_EC2_METADATA_SERVICE_ENDPOINT)"}
	case e.token:
		return trouble{"", e.Error(), again}
	default:
		return trouble{question, e.Error(), again}
	}
}

// describe is several troubles in one line, and what to change about the first of them. What is the same of several
// questions is said once.
func describe(troubles []trouble) (text, change string) {
	slices.SortFunc(troubles, func(a, b trouble) int {
		return cmp.Or(strings.Compare(a.text, b.text), strings.Compare(a.about, b.about))
	})
	var lines []string
	for i := 0; i < len(troubles); {
		t := troubles[i]
		var about []string
		for ; i < len(troubles) && troubles[i].text == t.text; i++ {
			if a := troubles[i].about; a != "" {
				about = append(about, a)
			}
		}
		line := "the instance metadata service does not answer"
		if len(about) > 0 && t.about != "" {
			line += " about " + strings.Join(about, ", ")
		}
		lines = append(lines, line+": "+t.text)
	}
	if len(troubles) > 0 {
		change = troubles[0].change
	}
	return strings.Join(lines, "; "), change
}
