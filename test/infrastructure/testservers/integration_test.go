//go:build integration

package testservers

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

func environment(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run: go tool mage test:integration", name)
	}
	return value
}

// What Start has started for this very run must serve the other packages' tests.

func TestPostgresLetsTestsCreateSchemas(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), environment(t, "E2E_TEST_POSTGRES_DSN"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{"CREATE SCHEMA testservers_test", "CREATE TABLE testservers_test.t (text text)", "DROP SCHEMA testservers_test CASCADE"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	var encoding string
	if err := conn.QueryRow(t.Context(), "SHOW server_encoding").Scan(&encoding); err != nil || encoding != "UTF8" {
		t.Errorf("got encoding %q, %v; want UTF8", encoding, err)
	}
}

func TestRedisAnswersWithoutPassword(t *testing.T) {
	if err := pingRedis(t.Context(), environment(t, "E2E_TEST_REDIS_ADDR")); err != nil {
		t.Error(err)
	}
}

func TestAPIServerProgramsAreThere(t *testing.T) {
	for _, program := range []string{"kube-apiserver", "etcd"} {
		info, err := os.Stat(environment(t, "KUBEBUILDER_ASSETS") + "/" + program)
		if err != nil || info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s: %v, %v", program, info, err)
		}
	}
}
