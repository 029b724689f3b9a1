package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseARN(t *testing.T) {
	for s, want := range map[string]ARN{
		testARN: {"aws", "eu-central-1", "123456789012", "web-prod", "0123456789abcdef"},
		"arn:aws-cn:elasticloadbalancing:cn-north-1:123456789012:targetgroup/a/1":         {"aws-cn", "cn-north-1", "123456789012", "a", "1"},
		"arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:000000000000:targetgroup/a/ff": {"aws-us-gov", "us-gov-west-1", "000000000000", "a", "ff"},
		"arn:aws-iso-b:elasticloadbalancing:us-isob-east-1:123456789012:targetgroup/a/1":  {"aws-iso-b", "us-isob-east-1", "123456789012", "a", "1"},
		"arn:aws-eusc:elasticloadbalancing:eusc-de-east-1:123456789012:targetgroup/A-9/1": {"aws-eusc", "eusc-de-east-1", "123456789012", "A-9", "1"},
	} {
		got, err := ParseARN(s)
		if err != nil {
			t.Errorf("ParseARN(%q): %v", s, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseARN(%q): -want +got:\n%s", s, diff)
		}
		if got.String() != s {
			t.Errorf("String() = %s; want %s", got, s)
		}
	}
}

// What is read is written the same, and what is not one is refused, whatever it is.
func FuzzParseARN(f *testing.F) {
	f.Add(testARN)
	f.Add("arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:123456789012:targetgroup/a/1")
	f.Add("arn:aws:ec2:eu-central-1:123456789012:instance/i-1")
	f.Add("arn:::::")
	f.Fuzz(func(t *testing.T, s string) {
		arn, err := ParseARN(s)
		if err != nil {
			if arn != (ARN{}) {
				t.Errorf("%v together with %v", arn, err)
			}
			return
		}
		if arn.String() != s {
			t.Errorf("%q became %q", s, arn)
		}
		if checkName(arn.Name) != nil || checkRegion(arn.Region) != nil {
			t.Errorf("%q has a name or region that its parts would be refused for", s)
		}
	})
}
