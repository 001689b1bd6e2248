package peers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// auth_http is asked when a client gives its password, which none does here.
const nginxConfig = `{{if .Module}}load_module {{.Module}};
{{end}}daemon off;
worker_processes auto;
worker_rlimit_nofile {{.Descriptors}};
pid {{.Dir}}/pid;
error_log stderr error;
events { worker_connections {{.Descriptors}}; }
mail {
    server_name {{.Hostname}};
    auth_http 127.0.0.1:9;
    ssl_certificate {{.Cert}};
    ssl_certificate_key {{.Key}};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ecdh_curve X25519;
    timeout 1h;
    server {
        listen {{.Addr}};
        protocol smtp;
        smtp_auth login plain;
        starttls on;
    }
}
`

func startNginx(ctx context.Context, l *lab) (*Server, error) {
	program, err := find("nginx")
	if err != nil {
		return nil, err
	}
	about, err := say(ctx, program, "-V")
	if err != nil {
		return nil, err
	}
	module, err := nginxModule(about)
	if err != nil {
		return nil, err
	}
	s, err := l.settle("nginx")
	if err != nil {
		return nil, err
	}
	s.Module = module
	srv := s.server("nginx", strings.TrimPrefix(wordAfter(about, "version:"), "nginx/"))
	conf, err := s.write("nginx.conf", nginxConfig)
	if err != nil {
		srv.Stop()
		return nil, err
	}
	return s.foreground(ctx, srv, program, "-p", s.Dir, "-e", "stderr", "-c", conf)
}

// nginxModule finds the mail module for the nginx that says this about itself; ""
// is one that is built in.
func nginxModule(about string) (path string, err error) {
	dirs := []string{"/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/libexec/nginx"}
	for option := range strings.FieldsSeq(about) {
		switch name, value, _ := strings.Cut(option, "="); {
		case option == "--with-mail":
			return "", nil
		case name == "--modules-path":
			dirs = append([]string{value}, dirs...)
		case name == "--prefix":
			dirs = append(dirs, filepath.Join(value, "modules"))
		}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, "ngx_mail_module.so")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.Join(errors.New("the mail module of nginx"), errMissing)
}
