package harness

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
)

// Image is a variant of the web server's image. The zero value declares port 8080/tcp and nothing else.
type Image struct {
	// Expose are the declared ports ("8080/tcp"); nil: 8080/tcp alone. An empty list declares none.
	Expose []string
	// Healthcheck adds a HEALTHCHECK that asks /livez every so often; 0: none.
	Healthcheck time.Duration
	// StopSignal is the image's STOPSIGNAL, as written; empty: none.
	StopSignal string
	// Labels are the image's own. Docker gives them to its containers.
	Labels map[string]string
}

// webBinary is the web server, static, compiled once in a process.
var webBinary = sync.OnceValues(func() ([]byte, error) {
	return Build("./test/web", []string{"-trimpath", "-ldflags=-s -w"}, []string{"CGO_ENABLED=0"})
})

// WebImage returns the tag of a variant of the web server's image on this engine, building it if it is not there. The
// tag is made from the content, so that processes share it; `make clean` removes the images.
func (e *Engine) WebImage(t testing.TB, variant Image) string {
	t.Helper()
	tag, err := e.BuildWeb(t.Context(), variant)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// BuildWeb is WebImage for programs that are no tests.
func (e *Engine) BuildWeb(ctx context.Context, variant Image) (string, error) {
	binary, err := webBinary()
	if err != nil {
		return "", err
	}
	dockerfile := variant.dockerfile()
	hash := sha256.New()
	hash.Write([]byte(dockerfile))
	hash.Write(binary)
	tag := fmt.Sprintf("berth-test/web:%x", hash.Sum(nil)[:6])

	switch _, err := e.Client.ImageInspect(ctx, tag); {
	case err == nil:
		return tag, nil
	case !errdefs.IsNotFound(err):
		return "", fmt.Errorf("look for image %s: %w", tag, err)
	}
	e.forgetOldImages(ctx)
	return tag, e.build(ctx, tag, map[string][]byte{"Dockerfile": []byte(dockerfile), "web": binary})
}

func (i Image) dockerfile() string {
	var b strings.Builder
	b.WriteString("FROM scratch\nCOPY web /web\nENTRYPOINT [\"/web\"]\n")
	expose := i.Expose
	if expose == nil {
		expose = []string{"8080/tcp"}
	}
	for _, port := range expose {
		fmt.Fprintf(&b, "EXPOSE %s\n", port)
	}
	if i.Healthcheck > 0 {
		fmt.Fprintf(&b, "HEALTHCHECK --interval=%v --timeout=10s --retries=1 CMD [\"/web\", \"healthcheck\"]\n", i.Healthcheck)
	}
	if i.StopSignal != "" {
		fmt.Fprintf(&b, "STOPSIGNAL %s\n", i.StopSignal)
	}
	fmt.Fprintf(&b, "LABEL %s=web\n", LabelImage)
	for _, key := range slices.Sorted(maps.Keys(i.Labels)) {
		fmt.Fprintf(&b, "LABEL %q=%q\n", key, i.Labels[key])
	}
	return b.String()
}

// build makes an image of a few files, one of which is its Dockerfile.
func (e *Engine) build(ctx context.Context, tag string, files map[string][]byte) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(header); err != nil {
			return fmt.Errorf("pack image %s: %w", tag, err)
		}
		if _, err := w.Write(files[name]); err != nil {
			return fmt.Errorf("pack image %s: %w", tag, err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("pack image %s: %w", tag, err)
	}
	response, err := e.Client.ImageBuild(ctx, &archive, build.ImageBuildOptions{Tags: []string{tag}, Remove: true, ForceRemove: true})
	if err != nil {
		return fmt.Errorf("build image %s: %w", tag, err)
	}
	defer response.Body.Close()
	// The reply is a stream of JSON values; a failed build is an ordinary reply with an error in it.
	for decoder := json.NewDecoder(response.Body); ; {
		var message struct {
			Error string `json:"error"`
		}
		switch err := decoder.Decode(&message); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("build image %s: read the reply: %w", tag, err)
		case message.Error != "":
			return fmt.Errorf("build image %s: %s", tag, message.Error)
		}
	}
}

// forgetOldImages removes images of earlier states of the web server. One that a container uses stays.
func (e *Engine) forgetOldImages(ctx context.Context) {
	images, err := e.Client.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("label", LabelImage+"=web"))})
	if err != nil {
		return // tidiness; the build will tell if the engine is ill
	}
	for _, old := range images {
		// An hour: another checkout's tests may be running. An image that was built again from the engine's cache is as
		// old as it ever was; what tells is when it got its name.
		found, err := e.Client.ImageInspect(ctx, old.ID)
		if err == nil && time.Since(found.Metadata.LastTagTime) > time.Hour {
			_, _ = e.Client.ImageRemove(ctx, old.ID, image.RemoveOptions{PruneChildren: true})
		}
	}
}
