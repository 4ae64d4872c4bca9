package datastorage_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"kubernaut.ai/e2e/test/e2e/audit"
	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/stores"
)

// migrations is a new Job like the one that was deployed, for this database; empty means
// the one that is in use.
func migrations(ctx context.Context, database string) *batchv1.Job {
	GinkgoHelper()
	deployed := &batchv1.Job{}
	Expect(kube.API.Get(ctx, ctrlclient.ObjectKey{Namespace: kube.Target.Namespace, Name: "migrations"}, deployed)).To(Succeed())
	name := uniqueName("migrations")
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: kube.Target.Namespace, Name: name}}
	job.Spec.Template.Spec = deployed.Spec.Template.Spec
	job.Spec.Template.Labels = map[string]string{"app.kubernetes.io/name": "migrations"} // lets it through to the database
	job.Spec.BackoffLimit = new(int32(0))
	for i, volume := range job.Spec.Template.Spec.Volumes {
		if database != "" && volume.Name == "config" {
			job.Spec.Template.Spec.Volumes[i].ConfigMap = &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: configFor(ctx, volume.ConfigMap.Name, name, database)},
			}
		}
	}
	Expect(kube.API.Create(ctx, job)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		Expect(kube.API.Delete(ctx, job, ctrlclient.PropagationPolicy(metav1.DeletePropagationBackground))).To(Succeed())
	})
	return job
}

// configFor copies a ConfigMap with another database's name in its config file.
func configFor(ctx context.Context, from, name, database string) string {
	GinkgoHelper()
	file := &corev1.ConfigMap{}
	Expect(kube.API.Get(ctx, ctrlclient.ObjectKey{Namespace: kube.Target.Namespace, Name: from}, file)).To(Succeed())
	changed := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: file.Namespace, Name: name}, Data: map[string]string{}}
	for key, text := range file.Data {
		changed.Data[key] = text
		if strings.HasSuffix(key, ".yaml") {
			var config map[string]any
			Expect(yaml.Unmarshal([]byte(text), &config)).To(Succeed())
			Expect(config).To(HaveKeyWithValue("database", HaveKey("name")))
			config["database"].(map[string]any)["name"] = database
			changed.Data[key] = string(must(yaml.Marshal(config)))
		}
	}
	Expect(kube.API.Create(ctx, changed)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) { Expect(kube.API.Delete(ctx, changed)).To(Succeed()) })
	return name
}

// complete waits until a Job has ended well. One that failed says why.
func complete(ctx context.Context, job *batchv1.Job) {
	GinkgoHelper()
	Expect(cluster.Await(ctx, kube, job, func(job *batchv1.Job) (bool, string) {
		return job.Status.Succeeded+job.Status.Failed > 0, "not complete"
	})).To(Succeed())
	if job.Status.Failed > 0 {
		lines, err := kube.LogsOf(ctx, ctrlclient.MatchingLabels{batchv1.JobNameLabel: job.Name})
		Fail(fmt.Sprintf("Job/%s failed: %v %s", job.Name, err, strings.Join(lines, "\n")))
	}
}

// emptyDatabase makes a database of the spec's own.
func emptyDatabase(ctx context.Context) string {
	GinkgoHelper()
	name := strings.ReplaceAll(uniqueName("e2e"), "-", "_")
	_, err := database(ctx).Exec(ctx, "CREATE DATABASE "+name+" OWNER datastorage")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) error {
		conn, err := stores.Postgres(ctx, kube, "")
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		return err
	})
	return name
}

// versions are the migrations that a database says were applied, in their order.
func versions(ctx context.Context, database string) []int64 {
	GinkgoHelper()
	conn := must(stores.Postgres(ctx, kube, database))
	defer func() { _ = conn.Close(ctx) }()
	rows := must(conn.Query(ctx, "SELECT version_id FROM goose_db_version WHERE is_applied ORDER BY id"))
	return must(pgx.CollectRows(rows, pgx.RowTo[int64]))
}

// They begin early, because their pods take some seconds.
var _ = Describe("Migrations", SpecPriority(first), func() {
	It("do nothing when they have been applied", SpecTimeout(broken), func(ctx SpecContext) {
		event := audit.NewEvent(correlation())
		stored(ctx, event)
		before := versions(ctx, "")
		complete(ctx, migrations(ctx, ""))
		Expect(versions(ctx, "")).To(Equal(before))
		Expect(must(found(ctx, event.CorrelationID))).To(ConsistOf(event.EventID.String()))
	})

	It("bring an empty database to the schema of the one in use", SpecTimeout(broken), func(ctx SpecContext) {
		name := emptyDatabase(ctx)
		complete(ctx, migrations(ctx, name))
		Expect(versions(ctx, name)).To(Equal(versions(ctx, "")))
	})

	It("by two Jobs at once are applied once", SpecTimeout(broken), func(ctx SpecContext) {
		name := emptyDatabase(ctx)
		one, two := migrations(ctx, name), migrations(ctx, name)
		complete(ctx, one)
		complete(ctx, two)
		Expect(versions(ctx, name)).To(Equal(versions(ctx, "")))
	})
})
