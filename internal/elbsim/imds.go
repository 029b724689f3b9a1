package elbsim

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/elbsim/wire"
)

const (
	actionIMDS  = "IMDS"
	tokenPath   = "/latest/api/token"
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	metaPrefix  = "/latest/meta-data/"
	identity    = "/latest/dynamic/instance-identity/document"
	roleName    = "elbsim"
	maxTokenTTL = 21600
)

// Paths of IMDS that appear and vanish; give them to SetMetadata and DeleteMetadata.
const (
	PathSpotAction     = metaPrefix + "spot/instance-action"
	PathLifecycleState = metaPrefix + "autoscaling/target-lifecycle-state"
	PathRebalance      = metaPrefix + "events/recommendations/rebalance"
	PathMaintenance    = metaPrefix + "events/maintenance/scheduled"
)

// SetMetadata makes an instance's IMDS answer a path ("/latest/meta-data/…", or what comes after meta-data/) with that
// value. An empty instance is the first one.
func (s *Sim) SetMetadata(instance, path, value string) error {
	return s.changeMetadata(instance, func(m map[string]string) { m[metadataPath(path)] = value })
}

// DeleteMetadata makes an instance's IMDS answer a path with 404.
func (s *Sim) DeleteMetadata(instance, path string) error {
	return s.changeMetadata(instance, func(m map[string]string) { delete(m, metadataPath(path)) })
}

// RevokeTokens makes all IMDS tokens invalid: their next use gets a 401.
func (s *Sim) RevokeTokens() {
	s.lock()
	defer s.mu.Unlock()
	s.tokenEra++
}

// Metadata returns all paths of an instance's IMDS with their values.
func (s *Sim) Metadata(instance string) map[string]string {
	s.lock()
	defer s.mu.Unlock()
	if inst := s.instances[s.orFirst(instance)]; inst != nil {
		return maps.Clone(s.metadataOf(inst))
	}
	return nil
}

func (s *Sim) orFirst(instance string) string {
	if instance == "" {
		return s.cfg.Instance.ID
	}
	return instance
}

func metadataPath(path string) string {
	if strings.HasPrefix(path, "/latest/") {
		return path
	}
	return metaPrefix + strings.TrimPrefix(path, "/")
}

func (s *Sim) changeMetadata(instance string, change func(map[string]string)) error {
	s.lock()
	defer s.mu.Unlock()
	inst := s.instances[s.orFirst(instance)]
	if inst == nil {
		return fmt.Errorf("metadata of instance %s: %w", instance, ErrUnknown)
	}
	change(s.metadataOf(inst))
	return nil
}

// metadataOf returns an instance's metadata, made at first use: most of ten thousand instances are never asked.
func (s *Sim) metadataOf(inst *instance) map[string]string {
	if inst.metadata != nil {
		return inst.metadata
	}
	i := &inst.spec
	mac := metaPrefix + "network/interfaces/macs/" + i.MAC + "/"
	document, _ := json.MarshalIndent(map[string]any{ // a map of strings always encodes
		"accountId": s.cfg.Account, "architecture": "x86_64", "availabilityZone": i.Zone, "imageId": "ami-0123456789abcdef0",
		"instanceId": i.ID, "instanceType": "m5.large", "pendingTime": "2024-01-01T00:00:00Z", "privateIp": i.PrivateIP,
		"region": s.cfg.Region, "version": "2017-09-30",
	}, "", "  ")
	m := map[string]string{
		identity:                                            string(document),
		metaPrefix + "ami-id":                               "ami-0123456789abcdef0",
		metaPrefix + "instance-id":                          i.ID,
		metaPrefix + "instance-type":                        "m5.large",
		metaPrefix + "instance-life-cycle":                  "on-demand",
		metaPrefix + "local-ipv4":                           i.PrivateIP,
		metaPrefix + "mac":                                  i.MAC,
		metaPrefix + "placement/availability-zone":          i.Zone,
		metaPrefix + "placement/region":                     s.cfg.Region,
		metaPrefix + "services/domain":                      "amazonaws.com",
		metaPrefix + "services/partition":                   "aws",
		mac + "device-number":                               "0",
		mac + "local-ipv4s":                                 i.PrivateIP,
		mac + "mac":                                         i.MAC,
		mac + "vpc-id":                                      i.VPC,
		metaPrefix + "iam/security-credentials/" + roleName: "",
	}
	for key, value := range i.Tags {
		m[metaPrefix+"tags/instance/"+key] = value
	}
	inst.metadata = m
	return m
}

// metadata answers one request to IMDS.
func (s *Sim) metadata(ctx context.Context, method, path string, header http.Header, instance string) outcome {
	now := s.lock()
	v := s.matchFaults(actionIMDS, path, subject{})
	s.mu.Unlock()
	if v.latency > 0 {
		if !sleep(ctx, v.latency) {
			return outcome{end: endHang}
		}
		now = time.Now()
	}
	switch v.kind {
	case FaultReset:
		return outcome{end: endReset}
	case FaultHang:
		<-ctx.Done()
		return outcome{end: endHang}
	}
	s.lock()
	defer s.mu.Unlock()
	out := s.answerMetadata(method, path, header, instance, now)
	switch v.kind {
	case FaultError:
		out = plain(imdsStatus(v.err), "")
	case FaultTruncate:
		out.body = out.body[:len(out.body)/2]
	case FaultEmpty:
		out = outcome{status: 200, contentType: "text/html"}
	}
	s.record.tally(count{actionIMDS, strconv.Itoa(out.status)})
	return out
}

// imdsStatus is the status with which a fault of IMDS answers: 500, unless one was asked for.
func imdsStatus(e *wire.Error) int {
	if e.Code == "InternalFailure" || e.Status != http.StatusBadRequest {
		return e.Status
	}
	return http.StatusInternalServerError
}

func plain(status int, text string) outcome {
	if text == "" {
		text = http.StatusText(status)
	}
	return outcome{status: status, contentType: "text/plain", body: []byte(text)}
}

func (s *Sim) answerMetadata(method, path string, header http.Header, instance string, now time.Time) outcome {
	if path == tokenPath {
		return s.grantToken(method, header, now)
	}
	if method != http.MethodGet && method != http.MethodHead {
		return plain(http.StatusMethodNotAllowed, "")
	}
	if !s.validToken(header.Get(tokenHeader), now) {
		return plain(http.StatusUnauthorized, "")
	}
	inst := s.instances[s.orFirst(instance)]
	if inst == nil {
		return plain(http.StatusNotFound, "")
	}
	m := s.metadataOf(inst)
	if value, ok := m[path]; ok {
		if strings.HasSuffix(path, "/iam/security-credentials/"+roleName) && value == "" {
			value = s.credentials(now)
		}
		return plain(http.StatusOK, value)
	}
	listing := children(m, strings.TrimSuffix(path, "/")+"/")
	if listing == "" {
		return plain(http.StatusNotFound, "")
	}
	return plain(http.StatusOK, listing)
}

// children lists what lies below a path, as IMDS does.
func children(m map[string]string, below string) string {
	names := map[string]bool{}
	for path := range m {
		if rest, ok := strings.CutPrefix(path, below); ok {
			name, _, deeper := strings.Cut(rest, "/")
			if deeper {
				name += "/"
			}
			names[name] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), "\n")
}

// credentials are those of the instance's role, so that a client finds keys without any configuration.
func (s *Sim) credentials(now time.Time) string {
	document, _ := json.MarshalIndent(map[string]string{ // a map of strings always encodes
		"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": now.UTC().Format(time.RFC3339),
		"AccessKeyId": "ASIAELBSIMELBSIMELBS", "SecretAccessKey": "elbsim", "Token": "elbsim",
		"Expiration": now.Add(6 * time.Hour).UTC().Format(time.RFC3339), "AccountId": s.cfg.Account,
	}, "", "  ")
	return string(document)
}

func (s *Sim) grantToken(method string, header http.Header, now time.Time) outcome {
	if method != http.MethodPut {
		return plain(http.StatusMethodNotAllowed, "")
	}
	if header.Get("X-Forwarded-For") != "" {
		return plain(http.StatusForbidden, "")
	}
	ttl, err := strconv.Atoi(header.Get(ttlHeader))
	if err != nil || ttl < 1 || ttl > maxTokenTTL {
		return plain(http.StatusBadRequest, "")
	}
	out := plain(http.StatusOK, s.token(now.Add(time.Duration(ttl)*time.Second)))
	out.header = http.Header{ttlHeader: {strconv.Itoa(ttl)}}
	return out
}

// token makes a token that ends at a time. It is signed rather than remembered: ten thousand clients cost nothing.
func (s *Sim) token(end time.Time) string {
	text := strconv.FormatInt(end.UnixNano(), 36)
	mac := hmac.New(sha256.New, []byte(s.secret))
	_, _ = fmt.Fprintf(mac, "%d/%s", s.tokenEra, text)
	return text + "-" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Sim) validToken(token string, now time.Time) bool {
	text, _, _ := strings.Cut(token, "-")
	nano, err := strconv.ParseInt(text, 36, 64)
	end := time.Unix(0, nano)
	return err == nil && now.Before(end) && hmac.Equal([]byte(token), []byte(s.token(end)))
}
