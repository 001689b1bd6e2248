package peers

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Clients are anonymous: no account is needed. What they see is a directory of root's
// with one in it that they may write to. The curve of vsftpd's TLS is P-256, always.
const vsftpdConfig = `background=NO
listen=YES
listen_address={{.Host}}
listen_port={{.Port}}
anonymous_enable=YES
local_enable=NO
anon_root={{.Files}}
secure_chroot_dir={{.Dir}}/empty
write_enable=YES
anon_upload_enable=YES
anon_other_write_enable=YES
pasv_address={{.Host}}
max_clients=0
max_per_ip=0
idle_session_timeout=3600
data_connection_timeout=3600
xferlog_enable=NO
{{if .Secure}}ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=YES
ssl_request_cert=NO
rsa_cert_file={{.Cert}}
rsa_private_key_file={{.Key}}
ssl_ciphers=HIGH
{{end}}`

// startVsftpd has clients see the files, in plaintext or secure.
func startVsftpd(ctx context.Context, l *lab, files string, secure bool) (*Server, error) {
	program, err := find("vsftpd")
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("vsftpd needs root")
	}
	return l.relay(ctx, "vsftpd", "", "vsftpd.conf", vsftpdConfig, func(s *settings) {
		s.Files, s.Secure = files, secure
		_ = os.Mkdir(filepath.Join(s.Dir, "empty"), 0o755) // it would tell
	}, program)
}

// uploads is the directory that clients may write to, in the one that they see.
const uploads = "up"

// makeFiles makes a directory with files of these sizes, which are read once, so that
// they are in memory.
func makeFiles(dir string, sizes map[string]int) error {
	if err := os.MkdirAll(filepath.Join(dir, uploads), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(dir, uploads), 0o777); err != nil {
		return err
	}
	for name, size := range sizes {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		err = f.Truncate(int64(size))
		if err == nil {
			_, err = io.Copy(io.Discard, f)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// removeUploads also keeps what is removed from being written to the disk later.
func removeUploads(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, uploads, "*"))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}
