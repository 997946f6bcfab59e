(component (import "escape" (type (sub resource))))
