//go:build browser

package report_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kubernaut.ai/e2e/test/infrastructure/command"
	"kubernaut.ai/e2e/test/infrastructure/report"
)

// view is how a page is looked at: on a phone and on a desk, side by side.
type view struct {
	name      string
	dark      bool
	noScripts bool
}

var views = []view{{"light", false, false}, {"dark", true, false}, {"without-scripts", false, true}}

// widths are of the pages, in pixels; height of all of them.
var widths = []int{380, 1600}

const height = 1000

// seen is what is on the screen.
type seen struct {
	Paint     float64    // milliseconds until something was
	Width     float64    // that the page asks for
	Why       float64    // the lower end of the why and the command to repeat it, from the top; 0 without
	Contrasts [2]float64 // of ink and of faint ink on paper
	Paper     float64    // its luminance, 0 to 1
	Rows      []struct {
		Label       string
		Top, Bottom float64
		Left, Right float64 // of the track
		Bars        []struct {
			Class, Title             string
			Left, Right, Top, Bottom float64
		}
	}
	Buttons  int
	Selected []string // by keys, one after the other
	Zoomed   float64  // how many times as wide the time line is after +
	Problem  string
}

// prober looks at the page in its frames and tells the server what it saw, which then lets
// the window finish loading.
const prober = `<!doctype html><body style="margin:0;display:flex">FRAMES<img src="/wait" width="0" height="0">
<script>
const luminance = text => { const [r, g, b] = text.match(/[\d.]+/g).map(Number).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const look = frame => {
  const page = frame.contentDocument, view = frame.contentWindow, out = {};
  const style = element => view.getComputedStyle(element);
  const paint = view.performance.getEntriesByType("paint")[0];
  out.paint = paint ? paint.startTime : 1e9;
  out.width = page.documentElement.scrollWidth;
  out.why = Math.max(0, ...[...page.querySelectorAll("header .why, header .command")].map(e => e.getBoundingClientRect().bottom));
  const paper = style(page.body).backgroundColor;
  out.paper = luminance(paper);
  out.contrasts = [contrast(style(page.body).color, paper), contrast(style(page.querySelector(".faint")).color, paper)];
  out.rows = [...page.querySelectorAll(".line .row")].map(row => {
    const at = row.getBoundingClientRect(), track = row.querySelector(".track").getBoundingClientRect();
    return {label: row.querySelector(".label span").textContent, top: at.top, bottom: at.bottom, left: track.left, right: track.right,
      bars: [...row.querySelectorAll(".b")].map(bar => { const b = bar.getBoundingClientRect(); return {class: bar.className, title: bar.title, left: b.left, right: b.right, top: b.top, bottom: b.bottom}; })};
  });
  out.buttons = page.querySelectorAll("button").length;
  const line = page.querySelector(".line"), inner = line.firstElementChild;
  const press = key => line.dispatchEvent(new view.KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  out.selected = ["ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight"].map(key => { press(key); return page.querySelector("[aria-current]")?.title ?? ""; });
  const before = inner.getBoundingClientRect().width;
  press("+");
  out.zoomed = inner.getBoundingClientRect().width / before;
  press("0");
  page.querySelector("[aria-current]")?.removeAttribute("aria-current");
  return out;
};
const painted = async frame => {
  await new Promise(done => frame.addEventListener("load", done));
  for (let i = 0; i < 500 && !frame.contentWindow.performance.getEntriesByType("paint").length; i++) await new Promise(done => setTimeout(done, 10));
  try { return look(frame); } catch (error) { return {problem: String(error.stack)}; }
};
Promise.all([...document.querySelectorAll("iframe")].map(painted)).then(seen => fetch("/seen", {method: "POST", body: JSON.stringify(seen)}));
</script>`

// look opens the page of a run in a browser and returns what is on the screen. The picture
// of it lies in the folder of the test's artifacts, see go test -artifacts.
func look(t *testing.T, browser string, run *report.Run, kind string, v view) []seen {
	t.Helper()
	page := []byte(read(t, run, report.PageFile))
	var result []seen
	told := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page", func(w http.ResponseWriter, _ *http.Request) {
		// Not by the file's name, which would lead elsewhere.
		_, _ = w.Write(page)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		sandbox, frames := "", ""
		if v.noScripts {
			sandbox = ` sandbox="allow-same-origin"`
		}
		for _, width := range widths {
			frames += fmt.Sprintf(`<iframe src="/page" style="border:0;flex:none;width:%dpx;height:%dpx"%s></iframe>`, width, height, sandbox)
		}
		_, _ = io.WriteString(w, strings.Replace(prober, "FRAMES", frames, 1))
	})
	mux.HandleFunc("GET /wait", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-told:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /seen", func(_ http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&result); err != nil {
			t.Error(err)
		}
		close(told)
	})
	mux.HandleFunc("GET /favicon.ico", http.NotFound)
	mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s: the page asks for %s", kind, r.URL) })
	server := httptest.NewServer(mux)
	defer server.Close()
	picture := filepath.Join(t.ArtifactDir(), kind+"-"+v.name+".png")
	scheme := 1
	if v.dark {
		scheme = 0
	}
	err := command.Local{}.Run(t.Context(), command.Cmd{Args: []string{
		browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(), fmt.Sprintf("--blink-settings=preferredColorScheme=%d", scheme),
		fmt.Sprintf("--window-size=%d,%d", widths[0]+widths[1], height), "--screenshot=" + picture, server.URL,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(result) != len(widths) {
		t.Fatalf("%s, %s: saw nothing", kind, v.name)
	}
	if info, err := os.Stat(picture); err != nil || info.Size() < 20<<10 {
		t.Errorf("%s, %s: got %v, %v, want a picture", kind, v.name, info, err)
	}
	return result
}

// findBrowser is a Chromium, by whichever name it goes.
func findBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome-headless-shell"} {
		if path, err := command.Find(name); err == nil {
			return path
		}
	}
	t.Fatal("no Chromium, which this test looks at pages with; install it: apt-get install --no-install-recommends chromium")
	return ""
}

func TestThePageOnAScreen(t *testing.T) {
	browser := findBrowser(t)
	for kind := range kinds {
		run := made(t, kind)
		for _, v := range views {
			if v.name != "light" && kind != "every" {
				continue // it has everything that there is
			}
			t.Run(kind+"/"+v.name, func(t *testing.T) {
				for i, seen := range look(t, browser, run, kind, v) {
					seen.check(t, run, v, widths[i])
				}
			})
		}
	}
}

// firstPaint is how long a page may take to show something, of 2,000 specs too.
const firstPaint = time.Second

func (s seen) check(t *testing.T, run *report.Run, v view, width int) {
	t.Helper()
	if s.Problem != "" || len(s.Rows) == 0 {
		t.Fatalf("%d pixels: saw nothing: %s", width, s.Problem)
	}
	if s.Paint > float64(firstPaint.Milliseconds()) {
		t.Errorf("first paint after %.0f ms", s.Paint)
	}
	if s.Width > float64(width) {
		t.Errorf("is %.0f pixels wide", s.Width)
	}
	if (s.Paper < 0.5) != v.dark {
		t.Errorf("paper has the luminance %.2f", s.Paper)
	}
	for _, contrast := range s.Contrasts {
		if contrast < 4.5 { // https://www.w3.org/TR/WCAG22/#contrast-minimum
			t.Errorf("contrast %.1f", contrast)
		}
	}
	if (s.Why == 0) != (run.Result == "passed") || s.Why > 0.7*height {
		t.Errorf("why and what to do end at %.0f pixels", s.Why)
	}
	labels := map[string]int{}
	bars := 0
	for i, row := range s.Rows {
		labels[row.Label]++
		if i > 0 && row.Top < s.Rows[i-1].Bottom-0.5 {
			t.Errorf("%s lies on %s", row.Label, s.Rows[i-1].Label)
		}
		if row.Left != s.Rows[0].Left || row.Right-row.Left < 100 {
			t.Errorf("%s: its track is from %.1f to %.1f, the first one's begins at %.1f", row.Label, row.Left, row.Right, s.Rows[0].Left)
		}
		for _, bar := range row.Bars {
			bars++
			if bar.Right-bar.Left < 2 || bar.Bottom-bar.Top < 8 || bar.Left < row.Left-1 || bar.Left > row.Right+1 || bar.Title == "" {
				t.Errorf("%s: %+v cannot be seen", row.Label, bar)
			}
		}
	}
	want := len(run.Steps) + len(run.Events)
	for _, step := range run.Steps {
		if labels[step.Title()] == 0 {
			t.Errorf("no row for %s", step.Title())
		}
	}
	for _, event := range run.Events {
		if labels[event.Kind] == 0 && event.Kind != "status" {
			t.Errorf("no row for events of the kind %s", event.Kind)
		}
	}
	for _, suite := range run.Suites {
		want += len(suite.Specs)
		if labels[suite.Name] == 0 {
			t.Errorf("no row for %s", suite.Name)
		}
	}
	for _, usage := range run.Usage {
		if labels[usage.Of] == 0 {
			t.Errorf("no row for what %s used", usage.Of)
		}
	}
	if bars != want {
		t.Errorf("%d bars, want %d", bars, want)
	}
	if v.noScripts {
		if s.Buttons > 0 {
			t.Error("buttons that do nothing")
		}
		return
	}
	if s.Zoomed < 1.5 || s.Buttons < 3 {
		t.Errorf("+ makes the time line %.2f times as wide; %d buttons", s.Zoomed, s.Buttons)
	}
	if first := s.Selected[0]; first == "" || s.Selected[1] == first || s.Selected[2] != first || strings.Join(s.Selected[3:], "") == "" {
		t.Errorf("keys select %q", s.Selected)
	}
}
