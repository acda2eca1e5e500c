package sketch

import "math"

// cosmos: a nebula, stars, and a planet with a ring.
type cosmos struct {
	p                    palette
	seed                 uint64
	x, y, r, tilt, light float64
	ring                 bool
	moonX, moonY, moonR  float64
	turn                 float64
}

func newCosmos(r *random, p palette, aspect float64) scene {
	s := &cosmos{
		p: p, seed: r.next(), x: r.between(0.3, 0.7) * aspect, y: r.between(0.36, 0.66), r: r.between(0.14, 0.26),
		tilt: r.between(-0.6, 0.6), light: r.between(0, 2*math.Pi), ring: r.float() < 0.65, turn: r.between(0, 10),
	}
	a, far := r.between(0, 2*math.Pi), r.between(1.8, 2.6)
	s.moonX, s.moonY, s.moonR = s.x+math.Cos(a)*s.r*far, s.y+math.Sin(a)*s.r*far, s.r*r.between(0.12, 0.24)
	return s
}

func (s *cosmos) at(x, y, px float64) rgb {
	c := s.nebula(x, y, px)
	c = s.ball(c, x, y, px, s.moonX, s.moonY, s.moonR, false)
	co, si := math.Cos(s.tilt), math.Sin(s.tilt)
	u, v := (x-s.x)*co+(y-s.y)*si, -(x-s.x)*si+(y-s.y)*co
	ring := 0.0
	var tint rgb
	if s.ring {
		d := math.Hypot(u, v/0.27) / s.r
		ring = smooth(1.28, 1.31, d) * smooth(2.12, 2.06, d) * (0.35 + 0.65*noise(s.seed+8, d*17, 0.5)) * (1 - 0.8*smooth(0.02, 0, math.Abs(d-1.72)))
		tint = s.p[4].mix(s.p[3], noise(s.seed+9, d*9, 0.5))
	}
	if v < 0 {
		c = c.mix(tint, ring*0.8)
	}
	c = s.ball(c, x, y, px, s.x, s.y, s.r, true)
	if v >= 0 {
		c = c.mix(tint, ring*0.9)
	}
	return c
}

func (s *cosmos) nebula(x, y, px float64) rgb {
	wx, wy := fbm(s.seed, x*1.7+s.turn, y*1.7, 4), fbm(s.seed+50, x*1.7, y*1.7+s.turn, 4)
	n := fbm(s.seed+1, x*1.5+wx*1.9, y*1.5+wy*1.9, 6)
	m := fbm(s.seed+2, x*2.1-wy*1.4, y*2.1+wx*1.4, 5)
	c := s.p[0].scale(0.45).mix(s.p[1], smooth(0.35, 0.62, n)).mix(s.p[2], smooth(0.48, 0.72, n)*0.9)
	c = c.add(s.p[3], 0.75*math.Pow(smooth(0.46, 0.78, m), 2))
	c = c.add(s.p[4], 0.5*math.Pow(smooth(0.56, 0.8, n*0.5+m*0.5), 2))
	dust := smooth(0.52, 0.7, fbm(s.seed+3, x*3+wy*2, y*3+wx*2, 5))
	c = c.mix(s.p[0].scale(0.35), dust*0.5)
	return c.add(rgb{1, 1, 1}, stars(s.seed+4, x, y, px, 0.4))
}

// ball draws a lit globe with bands over c.
func (s *cosmos) ball(c rgb, x, y, px, cx, cy, r float64, bands bool) rgb {
	u, v := (x-cx)/r, (y-cy)/r
	d := math.Hypot(u, v)
	if d > 1.5 {
		return c
	}
	if bands {
		c = c.add(s.p[4], 0.3*math.Exp(-(d-1)*9)*smooth(0.98, 1.02, d))
	}
	if d > 1+px/r {
		return c
	}
	z := math.Sqrt(max(1-d*d, 0))
	lx, ly := math.Cos(s.light), math.Sin(s.light)
	lit := clamp(0.5*z + 0.75*(u*lx+v*ly) + 0.1)
	surface := s.p[4].mix(s.p[3], 0.5)
	if bands {
		co, si := math.Cos(s.tilt), math.Sin(s.tilt)
		lat := -u*si + v*co
		swirl := fbm(s.seed+12, u*2.3+lat, lat*7+fbm(s.seed+13, u*3, v*3, 3)*1.4, 4)
		surface = gradient(swirl*1.5-0.25, s.p[2], s.p[3], s.p[4], s.p[5])
	}
	body := surface.scale(0.06).mix(surface, lit)
	return c.mix(body, smooth(1+px/r, 1-px/r, d))
}

// geometry: a board of cells with one flat form each.
type geometry struct {
	p    palette
	seed uint64
	cell float64
}

func newGeometry(r *random, p palette, aspect float64) scene {
	n := float64(4 + r.n(3))
	return &geometry{p: p, seed: r.next(), cell: math.Min(aspect, 1) / n}
}

func (s *geometry) at(x, y, px float64) rgb {
	i, j := math.Floor(x/s.cell), math.Floor(y/s.cell)
	rnd := random{mixBits(s.seed ^ uint64(int64(i))*7349 ^ uint64(int64(j))*91193)}
	inks := []rgb{s.p[0], s.p[1], s.p[2], s.p[3], s.p[4]}
	bg := inks[rnd.n(5)]
	if rnd.float() < 0.45 {
		bg = s.p[4]
	}
	a, b := inks[rnd.n(5)], inks[rnd.n(5)]
	for range 4 {
		if a == bg {
			a = inks[rnd.n(5)]
		}
		if b == a || b == bg {
			b = inks[rnd.n(5)]
		}
	}
	u, v := x/s.cell-i, y/s.cell-j
	for range rnd.n(4) { // a turn by a quarter
		u, v = v, 1-u
	}
	kind := rnd.n(9)
	c := s.form(kind, bg, a, b, u, v, px/s.cell)
	paper := fbm(s.seed+99, x*70, y*70, 2)
	worn := smooth(0.66, 0.8, fbm(s.seed+77, x*5, y*5, 5))
	return c.scale(0.94+0.1*paper).mix(s.p[5], worn*0.12)
}

func (s *geometry) form(kind int, bg, a, b rgb, u, v, e float64) rgb {
	in := func(d float64) float64 { return smooth(e, -e, d) } // d < 0 is inside
	corner := math.Hypot(u, v)
	middle := math.Hypot(u-0.5, v-0.5)
	switch kind {
	case 0: // a quarter of a circle, and a smaller one
		return bg.mix(a, in(corner-1)).mix(b, in(corner-0.5))
	case 1: // a circle
		return bg.mix(a, in(middle-0.42)).mix(b, in(middle-0.17))
	case 2: // a triangle
		return bg.mix(a, in(u-v)).mix(b, in(math.Hypot(u-0.72, v-0.28)-0.15))
	case 3: // stripes
		return bg.mix(a, in(math.Abs(math.Mod(v*4, 1)-0.5)*0.25-0.0625))
	case 4: // arcs
		ring := math.Abs(math.Mod(corner*5, 1)-0.5)*0.2 - 0.05
		return bg.mix(a, in(ring)*in(corner-1))
	case 5: // two halves of circles
		l, r := math.Hypot(u, v-0.5)-0.5, math.Hypot(u-1, v-0.5)-0.5
		return bg.mix(a, in(l)).mix(b, in(r))
	case 6: // dots
		du, dv := math.Mod(u*4, 1)-0.5, math.Mod(v*4, 1)-0.5
		return bg.mix(a, in(math.Hypot(du, dv)/4-0.065))
	case 7: // a leaf
		return bg.mix(a, in(corner-1)*in(math.Hypot(u-1, v-1)-1))
	}
	half := in(v - 0.5)
	return bg.mix(a, half).mix(b, in(math.Hypot(u-0.5, v-0.5)-0.5)*(1-half))
}

// paper: layers of cut paper that cast shadows on each other.
type paper struct {
	p            palette
	seed         uint64
	levels       int
	zoom, warp   float64
	lightX, sign float64
}

func newPaper(r *random, p palette, _ float64) scene {
	s := &paper{p: p, seed: r.next(), levels: 8 + r.n(5), zoom: r.between(1.1, 1.9), warp: r.between(0.8, 1.9), lightX: r.between(-0.014, 0.014), sign: 1}
	if r.float() < 0.5 {
		s.sign = -1
	}
	return s
}

func (s *paper) height(x, y float64) float64 {
	wx, wy := noise(s.seed, x*1.3, y*1.3)-0.5, noise(s.seed+1, x*1.3, y*1.3)-0.5
	n := fbm(s.seed+2, (x+wx*s.warp)*s.zoom, (y+wy*s.warp)*s.zoom, 3)
	return clamp((n-0.5)*2.3+0.56+s.sign*(y-0.5)*0.45) * float64(s.levels)
}

func (s *paper) at(x, y, _ float64) rgb {
	h := s.height(x, y)
	level := math.Floor(h)
	edge := smooth(0, 0.05, h-level) // the cut edge catches light
	if h == 0 || level == float64(s.levels) {
		edge = 1
	}
	c := gradient(0.1+0.95*level/float64(s.levels), s.p[0], s.p[1], s.p[2], s.p[3], s.p[4], s.p[5])
	shadow := 0.0
	for k := 1; k <= 4; k++ {
		f := float64(k)
		up := s.height(x+s.lightX*f*0.7, y-0.006*f)
		shadow += 0.25 * smooth(0, 0.22, up-level-1)
	}
	c = c.mix(s.p[0].scale(0.45), 0.55*shadow)
	c = c.add(s.p[5], 0.16*(1-edge))
	fibre := noise(s.seed+7, x*160, y*160)*0.5 + noise(s.seed+8, x*60, y*420)*0.5
	return c.scale(0.95 + 0.09*fibre)
}

// city: a skyline at dusk with lit windows, mirrored in a river.
type city struct {
	p                   palette
	seed                uint64
	quay                float64
	moonX, moonY, moonR float64
	rain                bool
}

func newCity(r *random, p palette, aspect float64) scene {
	return &city{p: p, seed: r.next(), quay: r.between(0.78, 0.86), moonX: r.between(0.2, 0.8) * aspect, moonY: r.between(0.14, 0.34), moonR: r.between(0.04, 0.09), rain: r.float() < 0.3}
}

func (s *city) at(x, y, px float64) rgb {
	if y < s.quay {
		return s.town(x, y, px)
	}
	depth := (y - s.quay) / (1 - s.quay)
	shift := (noise(s.seed+5, x*12, depth*70/(0.4+depth)) - 0.5) * (0.012 + 0.05*depth)
	c := s.town(x+shift, s.quay-(y-s.quay)*1.5+shift*1.4, max(px, 0.003))
	return c.mix(s.p[0], 0.35+0.3*depth).add(s.p[4], 0.05*smooth(0.65, 0.8, noise(s.seed+6, x*18, depth*80/(0.4+depth))))
}

func (s *city) town(x, y, px float64) rgb {
	p := s.p
	c := gradient(y/s.quay, p[0].mix(p[1], 0.4), p[1], p[2], p[3])
	d := math.Hypot(x-s.moonX, y-s.moonY)
	c = c.add(p[4], 0.28*math.Exp(-d*4)).mix(p[5], smooth(s.moonR+px, s.moonR-px, d)*0.95)
	c = c.add(rgb{1, 1, 1}, stars(s.seed+3, x, y, px, 0.16)*smooth(0.5, 0.1, y))
	cloud := smooth(0.5, 0.75, fbm(s.seed+4, x*1.4, y*8, 4))
	c = c.mix(p[3].mix(p[2], 0.4), 0.32*cloud*smooth(0.75, 0.3, y))
	for layer := range 4 {
		c = s.row(c, layer, x, y, px)
	}
	return c
}

// row draws one row of houses over c; the later ones are nearer.
func (s *city) row(c rgb, layer int, x, y, px float64) rgb {
	t := float64(layer) / 3
	w := 0.055 + 0.04*t
	seed := s.seed + uint64(layer)*313
	i := math.Floor(x / w)
	n := int(i)
	u := x/w - i
	tall := lattice(seed, n, 1)
	crowd := noise(seed+1, i*0.23, 4)
	top := s.quay - (0.1+(0.5-0.2*t)*tall*tall*crowd+0.16*crowd)*(1.05-0.3*t)
	inset := 0.03 + 0.14*lattice(seed, n, 2)
	side := px / w
	if lattice(seed, n, 3) < 0.3 { // a spire or a step
		if math.Abs(u-0.5) < 0.2 {
			top -= 0.03 * lattice(seed, n, 4)
		}
		if math.Abs(u-0.5) < max(0.018, side*0.6) {
			top -= 0.07 * lattice(seed, n, 5)
		}
	}
	cover := smooth(top-px, top+px, y) * smooth(inset-side, inset+side, u) * smooth(1+side, 1-side, u+inset*0.3)
	if cover == 0 {
		return c
	}
	body := s.p[2].mix(s.p[3], 0.3).mix(s.p[1], smooth(0, 0.45, t)).mix(s.p[0].scale(0.8), smooth(0.3, 1, t))
	body = body.mix(s.p[3], 0.3*(1-t)*smooth(s.quay-0.25, s.quay, y))
	if layer > 0 {
		body = s.windows(body, seed, n, u, y, top, w, px, t)
	}
	return c.mix(body, cover)
}

func (s *city) windows(body rgb, seed uint64, n int, u, y, top, w, px, t float64) rgb {
	const pitch = 0.0125
	gx, gy := u*w/pitch, (y-top)/(pitch*1.35)
	ix, iy := math.Floor(gx), math.Floor(gy)
	if iy < 1 {
		return body
	}
	on := lattice(seed+7, n*1000+int(ix), int(iy))
	lit := 0.26 + 0.3*lattice(seed+8, n, 3)
	if on > lit {
		return body
	}
	e := px / pitch
	fx, fy := math.Abs(gx-ix-0.5), math.Abs(gy-iy-0.5)
	in := smooth(0.3+e, 0.3-e, fx) * smooth(0.27+e, 0.27-e, fy)
	warm := s.p[5].mix(s.p[4], lattice(seed+9, n+int(ix), int(iy))).mix(s.p[3], 0.35*lattice(seed+10, int(ix), int(iy)))
	return body.mix(warm, in*(0.35+0.6*t)*(0.45+0.55*on/lit))
}
