package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := serve(t.Context(), "late", address); err == nil {
		t.Fatal("served at an address that is taken")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, "orders", address) }()
	transport := &http.Transport{DisableKeepAlives: true}
	get := func(path string) (string, error) {
		resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://" + address + path)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if got, err := get("/healthz"); err == nil && got == "ok\n" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("not healthy: %q, %v", got, err)
		}
	}
	_, port, _ := net.SplitHostPort(address)
	if got, err := get("/orders/1"); err != nil || got != "orders on port "+port+": GET /orders/1\n" {
		t.Errorf("got %q, %v", got, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("told to stop: %v", err)
	}
	if _, err := get("/"); err == nil {
		t.Error("it still answers")
	}
}
