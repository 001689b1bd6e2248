package peers

import "context"

// The login processes serve what a client says before it is logged in, which none
// is here. They are in Dovecot's high-performance mode: a process for many.
const dovecotConfig = `protocols = submission
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/state
instance_name = starttlsd-peers
log_path = /dev/stderr
info_log_path = /dev/null
listen = 127.0.0.1
hostname = {{.Hostname}}
ssl = yes
ssl_cert = <{{.Cert}}
ssl_key = <{{.Key}}
ssl_min_protocol = TLSv1.2
ssl_curve_list = X25519
disable_plaintext_auth = yes
submission_relay_host = 127.0.0.1
service submission-login {
  inet_listener submission {
    address = {{.Host}}
    port = {{.Port}}
  }
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = {{.Logins}}
  vsz_limit = 4G
}
service anvil {
  client_limit = {{.Descriptors}}
}
service auth {
  client_limit = {{.Descriptors}}
}
passdb {
  driver = static
  args = password=none
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}
{{if not .Root}}default_login_user = {{.User}}
default_internal_user = {{.User}}
default_internal_group = {{.Group}}
service anvil {
  chroot =
}
service stats {
  chroot =
}
service submission-login {
  chroot =
}
{{end}}`

// Logins is what one of the two login processes of Dovecot may hold, with
// descriptors left for its own.
func (s *settings) Logins() uint64 { return s.Descriptors * 3 / 4 }

func startDovecot(ctx context.Context, l *lab) (*Server, error) {
	program, err := find("dovecot")
	if err != nil {
		return nil, err
	}
	version, err := say(ctx, program, "--version")
	if err != nil {
		return nil, err
	}
	s, err := l.settle("dovecot")
	if err != nil {
		return nil, err
	}
	srv := s.server("dovecot", version)
	conf, err := s.write("dovecot.conf", dovecotConfig)
	if err != nil {
		srv.Stop()
		return nil, err
	}
	return s.foreground(ctx, srv, program, "-F", "-c", conf)
}
