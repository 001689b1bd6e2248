package peers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// An instance of its own, which discards all mail. A smtpd process serves one
// client at a time, and a hundred in its life, as Postfix has it by default.
const postfixConfig = `compatibility_level = 3.6
queue_directory = {{.Dir}}/spool
data_directory = {{.Dir}}/data
maillog_file = {{.Dir}}/output
maillog_file_prefixes = {{.Dir}}
syslog_name = starttlsd-peers
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
myhostname = {{.Hostname}}
mydestination = example.org
local_transport = discard
relay_transport = discard
virtual_transport = discard
default_transport = discard
local_recipient_maps =
alias_maps =
alias_database =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_tls_security_level = may
smtpd_tls_cert_file = {{.Cert}}
smtpd_tls_key_file = {{.Key}}
smtpd_tls_eecdh_grade = auto
tls_eecdh_auto_curves = X25519
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_new_tls_session_rate_limit = 0
smtpd_timeout = 3600s
`

const postfixServices = `{{.Addr}} inet n - n - 300 smtpd
pickup   unix       n - n 60 1 pickup
cleanup  unix       n - n - 0 cleanup
qmgr     unix       n - n 300 1 qmgr
tlsmgr   unix       - - n 1000? 1 tlsmgr
rewrite  unix       - - n - - trivial-rewrite
bounce   unix       - - n - 0 bounce
defer    unix       - - n - 0 bounce
trace    unix       - - n - 0 bounce
error    unix       - - n - - error
retry    unix       - - n - - error
discard  unix       - - n - - discard
anvil    unix       - - n - 1 anvil
postlog  unix-dgram n - n - 1 postlogd
`

// postfixSessions are fewer than there may be smtpd processes, since one that has
// served a hundred clients is replaced before it is gone.
const postfixSessions = 200

func startPostfix(ctx context.Context, l *lab) (*Server, error) {
	program, err := find("postfix")
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can start Postfix")
	}
	postconf, err := find("postconf")
	if err != nil {
		return nil, err
	}
	version, err := say(ctx, postconf, "-d", "-h", "mail_version")
	if err != nil {
		return nil, err
	}
	s, err := l.settle("postfix")
	if err != nil {
		return nil, err
	}
	srv := s.server("postfix", version)
	if err := s.startPostfix(ctx, srv, program, postconf); err != nil {
		err = fmt.Errorf("postfix did not start: %w: %s", err, lastLines(s.Dir))
		srv.Stop()
		return nil, err
	}
	return srv, nil
}

func (s *settings) startPostfix(ctx context.Context, srv *Server, program, postconf string) error {
	if _, err := s.write("etc/main.cf", postfixConfig); err != nil {
		return err
	}
	if _, err := s.write("etc/master.cf", postfixServices); err != nil {
		return err
	}
	etc, spool, data := filepath.Join(s.Dir, "etc"), filepath.Join(s.Dir, "spool"), filepath.Join(s.Dir, "data")
	for _, dir := range []string{spool, data} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	owner, err := say(ctx, postconf, "-c", etc, "-h", "mail_owner")
	if err != nil {
		return err
	}
	account, err := user.Lookup(owner)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return err
	}
	if err := os.Chown(data, uid, -1); err != nil {
		return err
	}
	// It makes the queue directories, detaches, and returns when it listens. It is
	// not cut short: what has detached cannot be ended before its pid is known.
	_, startErr := say(context.WithoutCancel(ctx), program, "-c", etc, "start")
	text, err := os.ReadFile(filepath.Join(spool, "pid", "master.pid"))
	if err != nil {
		return cmp.Or(startErr, err)
	}
	if srv.PID, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return err
	}
	if startErr != nil {
		return startErr
	}
	return greets(ctx, s.Addr, make(chan struct{}))
}
