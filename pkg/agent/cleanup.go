package agent

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"berth/pkg/config"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status"
)

// AnyBoot is a boot id that no boot has: to RemoveStale all that the ledger holds is of another.
const AnyBoot = "-"

// RemoveStale deregisters what the ledger holds of other boots than bootID, from the ledger alone, before Docker gives its
// ports to others or while the host shuts down. It returns how many targets it could, and how long their load balancers go
// on sending.
//
// It needs to know who this host is: a ledger that came with an image is another instance's, whose targets are none of
// ours.
func RemoveStale(ctx context.Context, cfg *config.Config, kept *ledger.Ledger, log *zap.Logger, bootID string) (removed int, settle time.Duration, err error) {
	if len(ledger.Stale(kept.Entries(), bootID)) == 0 {
		return 0, 0, nil
	}
	var aws AWS
	notices, err := aws.notices(ctx, cfg, log)
	if err != nil {
		return 0, 0, err
	}
	id, err := notices.Identity(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("learn this host's identity: %w", err)
	}
	self := SelfOf(id)
	stale := registrar.Reachable(ledger.Stale(kept.Claim(self), bootID), self, log)
	if len(stale) == 0 {
		return 0, 0, nil
	}
	for i := range stale {
		settle = max(settle, status.SettlingOf(stale[i].Facts.Protocol))
	}
	client, err := aws.client(ctx, id.Region)
	if err != nil {
		return 0, 0, err
	}
	removed, err = registrar.RemoveStale(ctx, elb.NewAPI(client), kept, stale, registrar.Options{Log: log, WriteTimeout: cfg.AWS.WriteTimeout})
	return removed, settle, err
}
