package tickets

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// agreed is the field with the secret that all nodes use; others have that name and a
// dot before what they are told apart by.
const agreed = "secret"

// poolSize is no number of connections: one goroutine uses one. After so many failures to
// connect go-redis would try by itself, once a second, and polls would fail meanwhile.
const poolSize = 1000

// redisLedger has a hash for each generation.
type redisLedger struct {
	db     *redis.Client
	rotate time.Duration
}

// errRedisURL does not quote the URL: there may be a password in it.
var errRedisURL = errors.New("the URL of Redis has to be redis://[user:password@]host[:port][/db], or rediss:// for TLS, with special characters as %XX")

func openRedis(raw string, rotate time.Duration) (*redisLedger, error) {
	opts, err := redisOptions(raw)
	if err != nil {
		return nil, err
	}
	logging.Disable() // it logs by itself what it also returns, to standard error
	return &redisLedger{redis.NewClient(opts), rotate}, nil
}

func redisOptions(raw string) (*redis.Options, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errRedisURL
	}
	port := u.Port()
	if port == "" {
		port = "6379"
	}
	db := 0
	if path := strings.Trim(u.Path, "/"); path != "" {
		if db, err = strconv.Atoi(path); err != nil || db < 0 {
			return nil, errRedisURL
		}
	}
	password, _ := u.User.Password()
	opts := &redis.Options{
		Addr:                  net.JoinHostPort(u.Hostname(), port),
		Username:              u.User.Username(),
		Password:              password,
		DB:                    db,
		ClientName:            "starttlsd",
		Protocol:              2,
		MaxRetries:            1,
		DialerRetries:         1,
		DialTimeout:           pollTimeout,
		ReadTimeout:           pollTimeout,
		WriteTimeout:          pollTimeout,
		ContextTimeoutEnabled: true,
		PoolSize:              poolSize,
		PipelinePoolSize:      -1,
		ReadBufferSize:        4 << 10,
		WriteBufferSize:       4 << 10,
		DisableIdentity:       true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
	if u.Scheme == "rediss" {
		opts.TLSConfig = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	return opts, nil
}

func (l *redisLedger) name(g int64) string {
	return fmt.Sprintf("starttlsd:tickets:%v:%d", l.rotate, g)
}

func (l *redisLedger) read(ctx context.Context, first, last int64) (map[int64][]secret, error) {
	pipe := l.db.Pipeline()
	replies := make(map[int64]*redis.MapStringStringCmd)
	for g := first; g <= last; g++ {
		replies[g] = pipe.HGetAll(ctx, l.name(g))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("reading Redis: %w", err)
	}
	found := make(map[int64][]secret)
	for g, reply := range replies {
		secrets, err := decode(reply.Val())
		if err != nil {
			return nil, fmt.Errorf("%s in Redis %w: delete it", l.name(g), err)
		}
		found[g] = secrets
	}
	return found, nil
}

// decode returns the secrets in a generation's hash.
func decode(fields map[string]string) (secrets []secret, err error) {
	if _, ok := fields[agreed]; !ok {
		return nil, nil
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) { // the agreed one sorts before the others
		if name != agreed && !strings.HasPrefix(name, agreed+".") {
			continue
		}
		b, err := base64.StdEncoding.DecodeString(fields[name])
		if err != nil || len(b) != len(secret{}) {
			return nil, errors.New("is not by this program")
		}
		if s := secret(b); !slices.Contains(secrets, s) && len(secrets) < maxSecrets {
			secrets = append(secrets, s)
		}
	}
	return secrets, nil
}

// write makes the secrets last for five rotations: they are first needed one before
// their own, and no longer two after it.
func (l *redisLedger) write(ctx context.Context, g int64, proposed secret, also []secret) error {
	name := l.name(g)
	_, err := l.db.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.HSetNX(ctx, name, agreed, encode(proposed))
		for _, s := range also {
			id := sha256.Sum256(s[:])
			tx.HSet(ctx, name, agreed+"."+hex.EncodeToString(id[:8]), encode(s))
		}
		tx.PExpire(ctx, name, 5*l.rotate)
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing to Redis: %w", err)
	}
	return nil
}

func encode(s secret) string { return base64.StdEncoding.EncodeToString(s[:]) }

func (l *redisLedger) close() { _ = l.db.Close() }
