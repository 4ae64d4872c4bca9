package session

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/onsi/gomega"
)

func TestAFailureDoesNotTellThePasswordOfAConnection(t *testing.T) {
	Format()
	config, err := pgx.ParseConfig("postgres://postgres@127.0.0.1:1/datastorage?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "a secret of this cluster"
	_, err = pgx.ConnectConfig(t.Context(), config)
	var said string
	g := gomega.NewGomega(func(message string, _ ...int) { said = message })
	g.Expect(fmt.Errorf("PostgreSQL: %w", err)).NotTo(gomega.HaveOccurred())
	if !strings.Contains(said, "connection refused") || strings.Contains(said, config.Password) {
		t.Errorf("got %s", said)
	}
}
