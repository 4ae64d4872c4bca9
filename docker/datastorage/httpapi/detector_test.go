//go:build !race

package httpapi

const detector = 0
