package coverage

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/cover"

	"kubernaut.ai/e2e/test/infrastructure/report"
)

// sourceFile is the blocks of one source file, by who reaches them.
type sourceFile struct {
	name   string
	blocks []block
}

type block struct {
	cover.ProfileBlock
	endToEnd, tests bool
}

// extent tells the blocks of a file apart.
type extent struct{ startLine, startCol, endLine, endCol int }

func extentOf(b cover.ProfileBlock) extent {
	return extent{b.StartLine, b.StartCol, b.EndLine, b.EndCol}
}

// merge joins who reaches what. What tests reach outside the program is left out.
func merge(endToEnd, tests []*cover.Profile) []sourceFile {
	reached := map[string]map[extent]bool{}
	for _, profile := range tests {
		blocks := map[extent]bool{}
		for _, block := range profile.Blocks {
			blocks[extentOf(block)] = block.Count > 0
		}
		reached[profile.FileName] = blocks
	}
	var files []sourceFile
	for _, profile := range endToEnd {
		merged := sourceFile{name: profile.FileName}
		for _, b := range profile.Blocks {
			merged.blocks = append(merged.blocks, block{b, b.Count > 0, reached[profile.FileName][extentOf(b)]})
		}
		files = append(files, merged)
	}
	return files
}

// profileText is the merged profile as Go's tools read it.
func profileText(files []sourceFile) string {
	var b strings.Builder
	b.WriteString("mode: set\n")
	for _, file := range files {
		for _, block := range file.blocks {
			count := 0
			if block.endToEnd || block.tests {
				count = 1
			}
			fmt.Fprintf(&b, "%s:%d.%d,%d.%d %d %d\n", file.name, block.StartLine, block.StartCol, block.EndLine, block.EndCol, block.NumStmt, count)
		}
	}
	return b.String()
}

// count adds up the statements by package and by function.
func (r reporter) count(result *report.Coverage, files []sourceFile) ([]report.Function, error) {
	var functions []report.Function
	for _, file := range files {
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, r.source(r.root, file.name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if ast.IsGenerated(parsed) {
			for _, block := range file.blocks {
				result.Generated += block.NumStmt
			}
			continue
		}
		path := packageOf(file.name)
		at := slices.IndexFunc(result.Packages, func(p report.Package) bool { return p.Path == path })
		if at < 0 {
			at = len(result.Packages)
			result.Packages = append(result.Packages, report.Package{Path: path})
		}
		for _, block := range file.blocks {
			result.Add(block.NumStmt, block.endToEnd, block.tests)
			result.Packages[at].Add(block.NumStmt, block.endToEnd, block.tests)
		}
		for _, decl := range parsed.Decls {
			function, ok := decl.(*ast.FuncDecl)
			if !ok || function.Body == nil {
				continue
			}
			from, to := set.Position(function.Body.Pos()), set.Position(function.Body.End())
			counted := report.Function{Name: functionName(function), File: strings.TrimPrefix(file.name, r.Module+"/"), Line: set.Position(function.Pos()).Line}
			for _, block := range file.blocks {
				if inside(block.StartLine, block.StartCol, from, to) {
					counted.Add(block.NumStmt, block.endToEnd, block.tests)
				}
			}
			if counted.Statements > 0 {
				functions = append(functions, counted)
			}
		}
	}
	slices.SortFunc(result.Packages, func(a, b report.Package) int { return strings.Compare(a.Path, b.Path) })
	return functions, nil
}

func inside(line, col int, from, to token.Position) bool {
	after := line > from.Line || line == from.Line && col >= from.Column
	before := line < to.Line || line == to.Line && col < to.Column
	return after && before
}

// functionName is the name with its receiver, as Go writes a method expression.
func functionName(function *ast.FuncDecl) string {
	if function.Recv == nil {
		return function.Name.Name
	}
	receiver, pointer := function.Recv.List[0].Type, false
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver, pointer = star.X, true
	}
	switch generic := receiver.(type) {
	case *ast.IndexExpr:
		receiver = generic.X
	case *ast.IndexListExpr:
		receiver = generic.X
	}
	name := fmt.Sprint(receiver)
	if pointer {
		name = "(*" + name + ")"
	}
	return name + "." + function.Name.Name
}

// hasStatements tells whether a package has any statement to count.
func (r reporter) hasStatements(path string, names []string) (bool, error) {
	for _, name := range names {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(r.source(r.root, path), name), nil, parser.SkipObjectResolution)
		if err != nil {
			return false, err
		}
		found := false
		ast.Inspect(parsed, func(node ast.Node) bool {
			switch function := node.(type) {
			case *ast.FuncDecl:
				found = found || function.Body != nil && len(function.Body.List) > 0
			case *ast.FuncLit:
				found = found || len(function.Body.List) > 0
			}
			return !found
		})
		if found {
			return true, nil
		}
	}
	return false, nil
}

// functionsText is one line a function.
func functionsText(functions []report.Function) string {
	var b strings.Builder
	for _, f := range functions {
		fmt.Fprintf(&b, "%-60s %-40s %4d statements  end to end %5.1f %%  merged %5.1f %%\n",
			fmt.Sprintf("%s:%d", f.File, f.Line), f.Name, f.Statements, f.EndToEndPercent(), f.MergedPercent())
	}
	return b.String()
}
