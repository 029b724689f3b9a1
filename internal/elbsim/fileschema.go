package elbsim

// fileDoc is the schema of the configuration file; docs/elbsim.md says what each key means. Durations are text, so that
// their errors name the key.
type fileDoc struct {
	Listen      string            `yaml:"listen"`
	Region      string            `yaml:"region"`
	Account     string            `yaml:"account"`
	AnyInstance bool              `yaml:"any_instance"`
	AutoAttach  bool              `yaml:"auto_attach"`
	Latency     string            `yaml:"latency"`
	Lags        fileLags          `yaml:"lags"`
	Throttling  fileThrottling    `yaml:"throttling"`
	Quotas      fileQuotas        `yaml:"quotas"`
	Unverified  fileUnverified    `yaml:"unverified"`
	Policy      string            `yaml:"policy"`
	Instances   []fileInstance    `yaml:"instances"`
	Groups      []fileGroup       `yaml:"target_groups"`
	Balancers   []fileBalancer    `yaml:"load_balancers"`
	Metadata    map[string]string `yaml:"metadata"`
}

type fileLags struct {
	Register   string `yaml:"register"`
	Deregister string `yaml:"deregister"`
	Describe   string `yaml:"describe"`
}

type fileThrottling struct {
	Enabled       bool        `yaml:"enabled"`
	RejectedTakes bool        `yaml:"rejected_takes"`
	Code          string      `yaml:"code"`
	Register      *fileBucket `yaml:"register"`
	Describe      *fileBucket `yaml:"describe"`
	All           *fileBucket `yaml:"all"`
}

type fileBucket struct {
	Capacity  float64 `yaml:"capacity"`
	PerSecond float64 `yaml:"per_second"`
}

type fileQuotas struct {
	TargetsPerGroup        int `yaml:"targets_per_group"`
	TargetsPerLoadBalancer int `yaml:"targets_per_load_balancer"`
	RegistrationsPerTarget int `yaml:"registrations_per_target"`
	GroupsPerRegion        int `yaml:"groups_per_region"`
	TargetsPerCall         int `yaml:"targets_per_call"`
}

type fileUnverified struct {
	DrainingCounts   bool `yaml:"draining_counts"`
	PartialRegister  bool `yaml:"partial_register"`
	RefuseDrainingIP bool `yaml:"refuse_draining_ip"`
}

type fileInstance struct {
	ID        string            `yaml:"id"`
	State     string            `yaml:"state"`
	VPC       string            `yaml:"vpc"`
	Zone      string            `yaml:"zone"`
	PrivateIP string            `yaml:"private_ip"`
	MAC       string            `yaml:"mac"`
	Address   string            `yaml:"address"`
	IMDS      string            `yaml:"imds"`
	Tags      map[string]string `yaml:"tags"`
}

func (i *fileInstance) spec() Instance {
	return Instance{
		ID: i.ID, State: i.State, VPC: i.VPC, Zone: i.Zone, PrivateIP: i.PrivateIP, MAC: i.MAC, Address: i.Address, Tags: i.Tags,
	}
}

type fileGroup struct {
	Name                string            `yaml:"name"`
	Protocol            string            `yaml:"protocol"`
	Port                int               `yaml:"port"`
	Type                string            `yaml:"type"`
	VPC                 string            `yaml:"vpc"`
	IPAddressType       string            `yaml:"ip_address_type"`
	HealthCheck         fileHealthCheck   `yaml:"health_check"`
	DeregistrationDelay string            `yaml:"deregistration_delay"`
	Tags                map[string]string `yaml:"tags"`
	Targets             []fileTarget      `yaml:"targets"`
}

type fileHealthCheck struct {
	Protocol           string `yaml:"protocol"`
	Port               string `yaml:"port"`
	Path               string `yaml:"path"`
	Interval           string `yaml:"interval"`
	Timeout            string `yaml:"timeout"`
	HealthyThreshold   int    `yaml:"healthy_threshold"`
	UnhealthyThreshold int    `yaml:"unhealthy_threshold"`
	Codes              string `yaml:"codes"`
}

type fileTarget struct {
	ID   string `yaml:"id"`
	Port int    `yaml:"port"`
}

type fileBalancer struct {
	Name        string         `yaml:"name"`
	Type        string         `yaml:"type"`
	IdleTimeout string         `yaml:"idle_timeout"`
	Listeners   []fileListener `yaml:"listeners"`
}

type fileListener struct {
	Address  string     `yaml:"address"`
	Protocol string     `yaml:"protocol"`
	Default  fileAction `yaml:"default"`
	Rules    []fileRule `yaml:"rules"`
}

type fileAction struct {
	Forward  string         `yaml:"forward"`
	Weighted map[string]int `yaml:"weighted"`
	Fixed    *fileFixed     `yaml:"fixed_response"`
}

type fileFixed struct {
	Status      int    `yaml:"status"`
	ContentType string `yaml:"content_type"`
	Body        string `yaml:"body"`
}

type fileRule struct {
	Priority    int                 `yaml:"priority"`
	PathPattern []string            `yaml:"path_pattern"`
	HostHeader  []string            `yaml:"host_header"`
	Method      []string            `yaml:"http_request_method"`
	Header      map[string][]string `yaml:"http_header"`
	SourceIP    []string            `yaml:"source_ip"`
	Forward     string              `yaml:"forward"`
	Weighted    map[string]int      `yaml:"weighted"`
	Fixed       *fileFixed          `yaml:"fixed_response"`
}
