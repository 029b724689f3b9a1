package elb_test

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"berth/internal/elbsim"
	"berth/pkg/registrar/elb"
)

// writes counts the writes to a connection.
type writes struct {
	net.Conn
	n *atomic.Int64
}

func (w writes) Write(b []byte) (int, error) {
	w.n.Add(1)
	return w.Conn.Write(b)
}

// A call leaves in one piece: header and body are one write, and over TLS one record.
func TestNewAPI_oneWrite(t *testing.T) {
	sim := elbsim.New(elbsim.Config{Region: "eu-central-1", Instance: elbsim.Instance{ID: "i-0123456789abcdef0"}})
	arn, err := sim.AddGroup(elbsim.Group{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	service, err := elbsim.Start(sim, elbsim.Listen{})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	var n atomic.Int64
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return writes{conn, &n}, err
	}}
	defer transport.CloseIdleConnections()
	api := elb.NewAPI(aws.Config{
		Region: "eu-central-1", BaseEndpoint: aws.String(service.URL()), HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider("AKIDTEST", "secret", ""),
	})
	for i := range int64(3) {
		if _, err := api.RegisterTargets(t.Context(), &elasticloadbalancingv2.RegisterTargetsInput{
			TargetGroupArn: &arn, Targets: []types.TargetDescription{{Id: aws.String("i-0123456789abcdef0"), Port: aws.Int32(int32(i) + 1)}},
		}); err != nil {
			t.Fatal(err)
		}
		if got := n.Swap(0); got != 1 {
			t.Errorf("call %d left in %d writes; want 1", i+1, got)
		}
	}
	if got := len(sim.Registered("web")); got != 3 {
		t.Errorf("%d targets registered; want 3", got)
	}
}
