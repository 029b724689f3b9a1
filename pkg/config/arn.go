package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ARN is the parsed ARN of a target group, in any partition of AWS.
type ARN struct {
	Partition string // aws, aws-cn, aws-us-gov, ...
	Region    string
	Account   string // 12 digits
	Name      string // the group's name
	ID        string // the part that differs between a deleted group and a new one of the same name
}

// String returns the ARN as AWS writes it.
func (a ARN) String() string {
	return "arn:" + a.Partition + ":" + elbService + ":" + a.Region + ":" + a.Account + ":targetgroup/" + a.Name + "/" + a.ID
}

const (
	elbService  = "elasticloadbalancing"
	nameRule    = "must be 1 to 32 letters, digits and hyphens, with no hyphen at either end"
	arnForm     = "arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID"
	regionRule  = `must be the name of a region, like "eu-central-1"`
	maxNameSize = 32
)

var (
	partitionPattern = regexp.MustCompile(`^aws(-[a-z0-9]+)*$`)
	regionPattern    = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}$`)
	accountPattern   = regexp.MustCompile(`^[0-9]{12}$`)
	groupIDPattern   = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
	namePattern      = regexp.MustCompile(`^[0-9A-Za-z]([0-9A-Za-z-]*[0-9A-Za-z])?$`)
)

// ParseARN reads the ARN of a target group, of any partition that begins with "aws". Its error is the rule alone,
// without the value: what is wrong, and what the ARN of a target group looks like.
func ParseARN(s string) (ARN, error) {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" {
		return ARN{}, errors.New("must be the ARN of a target group: " + arnForm)
	}
	a := ARN{Partition: parts[1], Region: parts[3], Account: parts[4]}
	kind, rest, _ := strings.Cut(parts[5], "/")
	name, id, found := strings.Cut(rest, "/")
	switch {
	case !partitionPattern.MatchString(a.Partition):
		return ARN{}, fmt.Errorf("must be the ARN of a target group (%s), not of partition %s", arnForm, quote(a.Partition))
	case parts[2] != elbService:
		return ARN{}, fmt.Errorf("must be the ARN of a target group (%s), not of service %s", arnForm, quote(parts[2]))
	case kind == "loadbalancer" || kind == "listener" || kind == "listener-rule":
		return ARN{}, fmt.Errorf("must be the ARN of a target group (%s), not of a %s", arnForm, kind)
	case kind != "targetgroup" || !found:
		return ARN{}, errors.New("must be the ARN of a target group: " + arnForm)
	case !regionPattern.MatchString(a.Region):
		return ARN{}, fmt.Errorf("must be the ARN of a target group (%s): %s is not the name of a region", arnForm, quote(a.Region))
	case !accountPattern.MatchString(a.Account):
		return ARN{}, fmt.Errorf("must be the ARN of a target group (%s): %s is not an account of 12 digits", arnForm, quote(a.Account))
	case checkName(name) != nil:
		return ARN{}, fmt.Errorf("must be the ARN of a target group (%s): its name %s %s", arnForm, quote(name), nameRule)
	case !groupIDPattern.MatchString(id):
		return ARN{}, fmt.Errorf("must be the ARN of a target group (%s): %s is not the hexadecimal id after the name", arnForm, quote(id))
	}
	a.Name, a.ID = name, id
	return a, nil
}

// checkName reports whether s can be the name of a target group in AWS.
// https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html
func checkName(s string) error {
	if len(s) > maxNameSize || !namePattern.MatchString(s) {
		return errors.New(nameRule)
	}
	return nil
}
