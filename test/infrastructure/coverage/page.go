package coverage

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"path"
	"strings"
)

//go:embed page.html
var pageSource string

// Page is a picture of the results: one file, with everything in it, that links the
// reports beside it.
func Page(results []Result) ([]byte, error) {
	parsed, err := template.New("page").Funcs(template.FuncMap{"count": count, "share": share, "short": short}).Parse(pageSource)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	err = parsed.Execute(&page, results)
	return page.Bytes(), err
}

// share is a part of a bar.
func share(class string, part, whole int) template.HTML {
	if part == 0 {
		return ""
	}
	return template.HTML(fmt.Sprintf(`<span class="%s" style="width:%.3f%%"></span>`, class, percent(part, whole)))
}

// short is a package's path below the service's, whose own is main.
func short(result Result, pkg Package) string {
	shortest := result.Packages[0].Path
	if pkg.Path == shortest {
		return "(main)"
	}
	if below, ok := strings.CutPrefix(pkg.Path, shortest+"/"); ok {
		return below
	}
	return path.Base(pkg.Path)
}
