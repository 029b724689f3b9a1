package pacer

// Class is the kind of a call, in the order in which calls matter.
type Class uint8

// The classes. Removing comes first: a stale target sends one application's traffic to another.
const (
	ClassNone Class = iota
	ClassDeregister
	ClassRegister
	ClassDescribe
	Classes // their number
)

// String returns "deregister", "register", "describe" or "none".
func (c Class) String() string {
	return [...]string{"none", "deregister", "register", "describe"}[min(c, Classes-1)]
}
