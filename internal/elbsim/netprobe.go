package elbsim

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
)

// NetProbe is the Prober that really connects, as ELB's health checkers do: a new connection each time, no redirects,
// no validation of certificates.
func NetProbe(ctx context.Context, c Check) Result {
	if c.Protocol == "TCP" {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", c.Address)
		if err != nil {
			return probeError(err)
		}
		_ = conn.Close()
		return Passed()
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // health checks do not validate certificates
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ToLower(c.Protocol)+"://"+c.Address+c.Path, nil)
	if err != nil {
		return Failed()
	}
	req.Header.Set("User-Agent", "ELB-HealthChecker/2.0")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return probeError(err)
	}
	_ = resp.Body.Close()
	if !matches(c.Codes, resp.StatusCode) {
		return Mismatch(resp.StatusCode)
	}
	return Passed()
}

func probeError(err error) Result {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return TimedOut()
	}
	return Failed()
}
